//! Harness for journeys over HTTP.
