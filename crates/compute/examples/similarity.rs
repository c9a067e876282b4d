//! Who has the same taste? Ratings of films, compared over the films that both have rated.
//!
//! `cargo run -p tidegate-compute --example similarity`

use tidegate_compute::similarity::{Algorithm, Entities, Options, similarities};
use tidegate_compute::{Control, Error};

fn main() -> Result<(), Error> {
    let people = Entities::sparse([
        ("Ada", vec![("Alien", 5.0), ("Brazil", 3.0), ("Casablanca", 1.0)]),
        ("Bo", vec![("Alien", 4.0), ("Brazil", 3.0), ("Casablanca", 2.0), ("Dune", 5.0)]),
        ("Cleo", vec![("Alien", 1.0), ("Casablanca", 5.0), ("Dune", 2.0)]),
        ("Dan", vec![("Brazil", 4.0), ("Dune", 4.0)]),
    ])?;
    let options = Options { min_similarity: Some(0.0), top_k: Some(2), ..Options::default() };
    let found = similarities(&people, Algorithm::Pearson, &options, &Control::new())?;
    for pair in found.pairs {
        println!("{:5.2}  {} and {}", pair.similarity, people.id(pair.first), people.id(pair.second));
    }
    Ok(())
}
