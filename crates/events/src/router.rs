//! From a name to the patterns that match it: a trie of segments, so that the number of patterns does not matter.

use hashbrown::HashMap;

use crate::Pattern;

/// Values filed under patterns.
#[derive(Debug)]
pub(crate) struct Router<T> {
    root: Node,
    values: Vec<T>,
}

#[derive(Debug, Default)]
struct Node {
    exact: HashMap<Box<str>, Node, foldhash::fast::RandomState>,
    /// After `*`.
    one: Option<Box<Node>>,
    /// After `**`.
    any: Option<Box<Node>>,
    /// Numbers of the values whose pattern ends here.
    ends: Vec<usize>,
}

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { root: Node::default(), values: Vec::new() }
    }
}

impl<T> Router<T> {
    pub(crate) fn add(&mut self, pattern: &Pattern, value: T) {
        let mut node = &mut self.root;
        for segment in pattern.as_str().split('.') {
            node = match segment {
                "*" => node.one.get_or_insert_default(),
                "**" => node.any.get_or_insert_default(),
                exact => node.exact.entry_ref(exact).or_default(),
            };
        }
        node.ends.push(self.values.len());
        self.values.push(value);
    }

    /// The values of all patterns that match, in the order in which they were added.
    pub(crate) fn find(&self, name: &str) -> impl Iterator<Item = &T> {
        let segments: Vec<&str> = name.split('.').collect();
        let mut found = Vec::new();
        self.root.collect(&segments, &mut found);
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(|value| &self.values[value])
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

impl Node {
    fn collect(&self, segments: &[&str], found: &mut Vec<usize>) {
        if let Some(any) = &self.any {
            for skipped in 0..=segments.len() {
                any.collect(&segments[skipped..], found);
            }
        }
        let Some((first, rest)) = segments.split_first() else {
            found.extend(&self.ends);
            return;
        };
        if let Some(exact) = self.exact.get(*first) {
            exact.collect(rest, found);
        }
        if let Some(one) = &self.one {
            one.collect(rest, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_router_finds_exactly_the_patterns_that_match(
            patterns in proptest::collection::vec("(a|b|\\*|\\*\\*)(\\.(a|b|\\*|\\*\\*)){0,3}", 0..8),
            name in "(a|b|c)(\\.(a|b|c)){0,4}",
        ) {
            let patterns: Vec<_> = patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect();
            let mut router = Router::default();
            patterns.iter().enumerate().for_each(|(number, pattern)| router.add(pattern, number));
            let expected: Vec<_> =
                (0..patterns.len()).filter(|number| patterns[*number].matches(&name)).collect();
            prop_assert_eq!(router.find(&name).copied().collect::<Vec<_>>(), expected);
        }
    }
}
