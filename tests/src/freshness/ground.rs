//! What the processes share, and how each gets there.

use tidegate_test_redis::{Cluster, Proxy, Server};

use super::plan::{Place, Plan};

#[derive(Debug)]
pub(super) enum Ground {
    /// A proxy for each process.
    One {
        server: Box<Server>,
        proxies: Vec<Proxy>,
    },
    Cluster(Cluster),
}

impl Ground {
    pub(super) async fn of(plan: &Plan) -> Self {
        match plan.place {
            Place::One => {
                let server = Box::new(plan.server().start().await);
                let proxies = (0..plan.nodes).map(|_| Proxy::start(server.addr())).collect();
                Self::One { server, proxies }
            }
            Place::Cluster => Self::Cluster(Cluster::start().await),
        }
    }

    /// How the process on this seat gets there.
    pub(super) fn url(&self, seat: usize) -> String {
        match self {
            Self::One { server, proxies } => server.url_through(&proxies[seat]),
            Self::Cluster(cluster) => cluster.url(),
        }
    }
}
