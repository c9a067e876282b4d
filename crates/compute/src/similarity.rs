//! How alike entities are, pair by pair: all pairs, the best of each entity, or those above a level.
//!
//! ```
//! use tidegate_compute::Control;
//! use tidegate_compute::similarity::{Algorithm, Entities, Options, similarities};
//!
//! let entities = Entities::dense([("a", [1.0, 2.0, 3.0]), ("b", [2.0, 4.0, 6.0]), ("c", [3.0, 1.0, 2.0])])?;
//! let found = similarities(&entities, Algorithm::Pearson, &Options::default(), &Control::new())?;
//! let best = found.pairs[0];
//! assert_eq!((entities.id(best.first), entities.id(best.second)), (&"a", &"b"));
//! assert!((best.similarity - 1.0).abs() < 1e-12);
//! # Ok::<(), tidegate_compute::Error>(())
//! ```
//!
//! What is not here: the full n × n matrix. However many entities there are, memory is the entities (twice),
//! a few tiles per thread, and about four times `limit` pairs of 16 bytes.

mod dense;
mod entities;
mod keep;
mod overlap;
mod sparse;
mod standard;

pub use entities::Entities;

use crate::{Control, Error};
use entities::Rows;
use keep::Keep;

/// What "alike" means. All results lie in [-1, 1], or [0, 1] for Jaccard and Euclidean.
///
/// *Dense* entities have a value in every column. *Sparse* ones rate some items; an item not rated is unknown, not 0,
/// and two entities that share no item have no similarity and form no pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Correlation. Dense: of the two rows, as `numpy.corrcoef`. Sparse: over the items both have rated, each row centred on
    /// its mean *over those items*; at least 2 such items. Without variance (all values equal) there is no similarity.
    Pearson,
    /// Cosine of the angle: the dot product by the product of the lengths. Sparse: the dot product runs over shared items, the lengths
    /// over all items of each row. A row of zeros has no similarity.
    Cosine,
    /// Shared by joint: |A ∩ B| / |A ∪ B|. Dense: of the sets of columns that are not 0. Sparse: of the sets of rated items, whatever
    /// the rating. An empty set has no similarity.
    Jaccard,
    /// 1 / (1 + Euclidean distance). Sparse: the distance over the items both have rated, at least 1.
    Euclidean,
}

/// Which pairs to report.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Only pairs at least this alike; all pairs if absent.
    pub min_similarity: Option<f64>,
    /// Only the k best partners of each entity (ties go to the lesser id); a pair is reported once if either side keeps it.
    /// 0 keeps nothing; as many as there are entities, or more, keeps all.
    pub top_k: Option<usize>,
    /// At most so many pairs, the most similar ones; memory grows with it, 64 bytes each.
    pub limit: usize,
}

impl Default for Options {
    /// Every pair, up to 100 000 of them: a reply of a few megabytes.
    fn default() -> Self {
        Self { min_similarity: None, top_k: None, limit: 100_000 }
    }
}

/// Two entities, by their places in the input; the one with the lesser id comes first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    /// Place of the entity with the lesser id.
    pub first: usize,
    /// Place of the entity with the greater id.
    pub second: usize,
    /// How alike they are.
    pub similarity: f64,
}

/// The pairs asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Similarities {
    /// Most similar first; equally similar ones by first id, then second id.
    pub pairs: Vec<Pair>,
    /// Whether more pairs qualified than `limit` allows; those reported are the most similar.
    pub truncated: bool,
}

/// Compares every entity with every other.
///
/// Runs on the current pool in tiles of about a millisecond; a cancel is seen between two of them (for a limit far above the default,
/// between two parts of the final sort). The result depends neither on the number of threads nor on the order of the entities,
/// up to the last bit of a sparse similarity.
///
/// # Errors
/// `MinSimilarityNan`, `Cancelled`.
pub fn similarities<I: Ord + Sync>(
    entities: &Entities<I>,
    algorithm: Algorithm,
    options: &Options,
    control: &Control,
) -> Result<Similarities, Error> {
    if options.min_similarity.is_some_and(f64::is_nan) {
        return Err(Error::MinSimilarityNan);
    }
    if options.top_k == Some(0) {
        return Ok(Similarities { pairs: Vec::new(), truncated: false });
    }
    let order = entities.in_id_order();
    let (order, keep) = match entities.rows() {
        Rows::Dense(matrix) => dense::compare(matrix, order, algorithm, options, control)?,
        Rows::Sparse(matrix) => {
            let keep = Keep::new(order.len(), options);
            sparse::compare(matrix, &order, algorithm, &keep, control)?;
            (order, keep)
        }
    };
    let (candidates, truncated) = keep.finish(control)?;
    let place = |rank: u32| order[rank as usize] as usize;
    let pair = |found: &keep::Candidate| Pair {
        first: place(found.first()),
        second: place(found.second()),
        similarity: found.similarity(),
    };
    Ok(Similarities { pairs: candidates.iter().map(pair).collect(), truncated })
}
