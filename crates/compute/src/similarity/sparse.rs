//! Sparse entities: for each row, the lists of who else rated its items are walked and what is shared is added up per partner.

use super::Algorithm;
use super::keep::{Candidate, Keep};
use super::overlap::{Cosine, Euclidean, Jaccard, Measure, Pearson, Shared};
use crate::matrix::SparseMatrix;
use crate::scratch::Scratch;
use crate::{Control, Error};

/// 64 rows: some hundreds of microseconds at 1 % of 20 000 × 2 000.
const TILE_ROWS: usize = 64;
/// 64 Ki candidates, 1 MiB, wait in a tile before they are offered.
const FOUND_MAX: usize = 1 << 16;

/// Compares all rows; `order` tells the place of each rank.
pub(super) fn compare(
    matrix: &SparseMatrix,
    order: &[u32],
    algorithm: Algorithm,
    keep: &Keep,
    control: &Control,
) -> Result<(), Error> {
    match algorithm {
        Algorithm::Pearson => run(&Pearson { matrix, order }, matrix, order, keep, control),
        Algorithm::Cosine => run(&Cosine, matrix, order, keep, control),
        Algorithm::Jaccard => run(&Jaccard { matrix, order }, matrix, order, keep, control),
        Algorithm::Euclidean => run(&Euclidean, matrix, order, keep, control),
    }
}

fn run<M: Measure>(
    measure: &M,
    matrix: &SparseMatrix,
    order: &[u32],
    keep: &Keep,
    control: &Control,
) -> Result<(), Error> {
    let postings = Postings::new(measure, matrix, order, control)?;
    let scratch = Scratch::new();
    control.for_each_tile(order.len().div_ceil(TILE_ROWS), |tile| {
        let mut work = scratch.lend(|| Work::<M::Shared>::new(order.len()));
        for first in tile * TILE_ROWS..order.len().min((tile + 1) * TILE_ROWS) {
            // A cancel may leave sums behind: no tile runs after it.
            postings.walk(first, &mut work, control)?;
            work.offer_row(measure, first, keep, control)?;
        }
        keep.offer(&mut work.found, control)
    })
}

/// For each item, who rated it and how: ranks rising.
struct Postings {
    /// Where each item's list begins; one more than there are items.
    begins: Vec<usize>,
    entries: Vec<(u32, f64)>,
    /// Where each rank's own entries begin below; one more than there are ranks.
    rows: Vec<usize>,
    /// Of each own entry, its item and where it stands in that item's list.
    own: Vec<(u32, usize)>,
}

impl Postings {
    fn new<M: Measure>(measure: &M, matrix: &SparseMatrix, order: &[u32], control: &Control) -> Result<Self, Error> {
        let (used, items) = matrix.used_columns();
        let mut begins = vec![0; used.len() + 1];
        items.iter().for_each(|item| begins[*item as usize + 1] += 1);
        for item in 1..begins.len() {
            begins[item] += begins[item - 1];
        }
        let mut next = begins.clone();
        let mut postings =
            Self { begins, entries: vec![(0, 0.0); items.len()], rows: vec![0], own: Vec::with_capacity(items.len()) };
        let mut weights = Vec::new();
        for (rank, place) in (0..).zip(order) {
            control.check()?;
            let (_, values) = matrix.row(*place as usize);
            weights.resize(values.len(), 0.0);
            if measure.weights(values, &mut weights) {
                for (item, weight) in items[matrix.range(*place as usize)].iter().zip(&weights) {
                    let next = &mut next[*item as usize];
                    postings.entries[*next] = (rank, *weight);
                    postings.own.push((*item, *next));
                    *next += 1;
                }
            }
            postings.rows.push(postings.own.len());
        }
        postings.close_gaps(&next);
        Ok(postings)
    }

    /// Rows without weights left the ends of their lists unused: cut them off.
    fn close_gaps(&mut self, ends: &[usize]) {
        let mut kept = 0;
        let mut moved = vec![0; ends.len()];
        for item in 0..ends.len() - 1 {
            let list = self.begins[item]..ends[item];
            moved[item] = list.start - kept;
            self.begins[item] = kept;
            kept += list.len();
            self.entries.copy_within(list, self.begins[item]);
        }
        *self.begins.last_mut().expect("one more than there are items") = kept;
        self.entries.truncate(kept);
        self.own.iter_mut().for_each(|(item, place)| *place -= moved[*item as usize]);
    }

    /// Adds up what `first` shares with every later rank.
    fn walk<S: Shared>(&self, first: usize, work: &mut Work<S>, control: &Control) -> Result<(), Error> {
        for &(item, place) in &self.own[self.rows[first]..self.rows[first + 1]] {
            control.check()?;
            let (_, own) = self.entries[place];
            for &(second, other) in &self.entries[place + 1..self.begins[item as usize + 1]] {
                let shared = &mut work.shared[second as usize];
                if shared.is_empty() {
                    work.touched.push(second);
                }
                shared.add(own, other);
            }
        }
        Ok(())
    }
}

/// What one tile works in.
struct Work<S> {
    /// By rank of the partner; empty between rows.
    shared: Vec<S>,
    touched: Vec<u32>,
    found: Vec<Candidate>,
}

impl<S: Shared> Work<S> {
    fn new(entities: usize) -> Self {
        Self { shared: vec![S::default(); entities], touched: Vec::new(), found: Vec::new() }
    }

    fn offer_row<M: Measure<Shared = S>>(
        &mut self,
        measure: &M,
        first: usize,
        keep: &Keep,
        control: &Control,
    ) -> Result<(), Error> {
        let own = keep.floors().of(first);
        for second in self.touched.drain(..) {
            control.check()?;
            let second = second as usize;
            let shared = std::mem::take(&mut self.shared[second]);
            if let Some(similarity) = measure.similarity(&shared, first, second)
                && (similarity >= own || similarity >= keep.floors().of(second))
            {
                self.found.push(Candidate::new(similarity, first, second));
            }
        }
        if self.found.len() > FOUND_MAX {
            keep.offer(&mut self.found, control)?;
        }
        Ok(())
    }
}
