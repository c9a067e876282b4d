//! The scripts.

use std::sync::LazyLock;

use tidegate_redis_ops::Script;

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: LazyLock<Script> =
            LazyLock::new(|| Script::new($file, include_str!(concat!("lua/", $file, ".lua"))));)*

        /// All of them, for the reference.
        pub(super) fn all() -> Vec<&'static Script> {
            vec![$(&*$name),*]
        }
    };
}

scripts! {
    JOIN = "join";
    PREFIX = "prefix";
    UNLIST = "unlist";
    WRITE = "write";
    LEASE = "lease";
    RENEW = "renew";
    DELETE = "delete";
    SWEEP = "sweep";
}
