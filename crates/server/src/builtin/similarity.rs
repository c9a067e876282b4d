//! `similarity_calculation`: how alike entities are, pair by pair.

use std::borrow::Cow;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use tidegate_compute::Control;
use tidegate_compute::similarity::{self, Entities, Options, similarities};

use super::{Failure, Id, Limits, input, output};

/// 1 M pairs: a computation keeps 64 bytes for each.
const PAIRS_MAX: usize = 1_000_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Input<'a> {
    #[serde(borrow)]
    entities: Vec<Entity<'a>>,
    algorithm: Algorithm,
    options: Option<Wanted>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity<'a> {
    #[serde(borrow)]
    id: Id<'a>,
    values: Option<Vec<f64>>,
    #[serde(borrow)]
    ratings: Option<Ratings<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Wanted {
    min_similarity: Option<f64>,
    top_k: Option<usize>,
    limit: Option<usize>,
}

#[derive(Clone, Copy, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Algorithm {
    Pearson,
    Cosine,
    Jaccard,
    Euclidean,
}

impl From<Algorithm> for similarity::Algorithm {
    fn from(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Pearson => Self::Pearson,
            Algorithm::Cosine => Self::Cosine,
            Algorithm::Jaccard => Self::Jaccard,
            Algorithm::Euclidean => Self::Euclidean,
        }
    }
}

/// Item and rating, in the order they came; a map would hide an item that is rated twice.
struct Ratings<'a>(Vec<(Cow<'a, str>, f64)>);

impl<'de: 'a, 'a> Deserialize<'de> for Ratings<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Ratings<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of item and number")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Ratings<'de>, A::Error> {
                let mut ratings = Vec::new();
                while let Some((Item(item), rating)) = map.next_entry()? {
                    ratings.push((item, rating));
                }
                Ok(Ratings(ratings))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// An item's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Item<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Serialize)]
struct Output<'a> {
    algorithm: Algorithm,
    entities: usize,
    pairs: Vec<(&'a Id<'a>, &'a Id<'a>, f64)>,
    truncated: bool,
}

pub(super) fn run(data: &[u8], limits: &Limits, control: &Control) -> Result<Vec<u8>, Failure> {
    let Input { entities, algorithm, options } = input(data)?;
    let wanted = options.unwrap_or_default();
    let options = Options {
        min_similarity: wanted.min_similarity,
        top_k: wanted.top_k,
        limit: wanted.limit.unwrap_or(Options::default().limit),
    };
    if options.limit > PAIRS_MAX {
        return Err(Failure::Input(format!("data: options.limit: {} is more than {PAIRS_MAX}", options.limit)));
    }
    let entities = named(entities)?;
    let found = similarities(&entities, algorithm.into(), &options, control)?;
    let pairs =
        found.pairs.iter().map(|pair| (entities.id(pair.first), entities.id(pair.second), pair.similarity)).collect();
    output(&Output { algorithm, entities: entities.len(), pairs, truncated: found.truncated }, limits)
}

/// All dense or all sparse, as the first entity is.
fn named(entities: Vec<Entity<'_>>) -> Result<Entities<Id<'_>>, Failure> {
    let is_dense = entities.first().is_none_or(|first| first.values.is_some());
    let odd = |place: usize, entity: &Entity<'_>| {
        let message = match (&entity.values, &entity.ratings) {
            (None, None) => format!("data: entity {place} has neither values nor ratings"),
            (Some(_), Some(_)) => format!("data: entity {place} has both values and ratings"),
            _ => format!("data: entity {place} differs from entity 0: give values for all or ratings for all"),
        };
        Failure::Input(message)
    };
    for (place, entity) in entities.iter().enumerate() {
        if entity.values.is_some() != is_dense || entity.ratings.is_some() == is_dense {
            return Err(odd(place, entity));
        }
    }
    let found = if is_dense {
        Entities::dense(entities.into_iter().map(|entity| (entity.id, entity.values.unwrap_or_default())))
    } else {
        Entities::sparse(
            entities.into_iter().map(|entity| (entity.id, entity.ratings.map_or_else(Vec::new, |ratings| ratings.0))),
        )
    };
    Ok(found?)
}
