//! Pure numeric functions: similarity, matrix product, normalized power.
