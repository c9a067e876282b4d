//! Jobs that the server works on itself: results equal to known ones, errors with a reason, cancellation.

use std::time::Duration;

use serde_json::{Value, json};
use tidegate_tests::{endless_job, eventually};

use super::start;

#[tokio::test]
async fn normalized_power_is_null_for_a_short_ride_and_a_number_for_a_real_one() {
    let server = start().await;
    let client = server.client();
    let short = client.submit(json!({"jobType": "normalized_power", "data": {"power": [200, 210, null]}})).await;
    let ride = tidegate_tests::repository().join("tests/fixtures/ride-power.csv");
    let ride = std::fs::read_to_string(ride).expect("the fixture is there");
    let power: Vec<Value> = ride
        .lines()
        .skip(1)
        .map(|line| line.split(',').nth(1).and_then(|watts| watts.parse::<f64>().ok()).into())
        .collect();
    let long = client.submit(json!({"jobType": "normalized_power", "data": {"power": power}})).await;
    let short = client.job_in(&short.job_id, &["completed", "failed"]).await;
    assert_eq!((short.queue.as_str(), short.status.as_str()), ("builtin", "completed"));
    let result: Value = serde_json::from_str(short.result.expect("a result").get()).expect("JSON");
    assert!(result["normalizedPower"].is_null(), "{result}");
    let long = client.job_in(&long.job_id, &["completed", "failed"]).await;
    let result: Value = serde_json::from_str(long.result.expect("a result").get()).expect("JSON");
    let watts = result["normalizedPower"].as_f64().expect("a number");
    assert!((watts - 267.431_317_592_175_33).abs() < 1e-6, "{watts}");
    assert_eq!(result["windows"], 8328);
}

#[tokio::test]
async fn matrices_are_multiplied_and_impossible_ones_fail_with_the_reason() {
    let server = start().await;
    let client = server.client();
    let data = json!({"matrixA": [[1, 2, 3], [4, 5, 6]], "matrixB": [[7, 8], [9, 10], [11, 12]]});
    let job = client.submit(json!({"jobType": "matrix_multiplication", "data": data})).await;
    let job = client.job_in(&job.job_id, &["completed", "failed"]).await;
    let result: Value = serde_json::from_str(job.result.expect("a result").get()).expect("JSON");
    let numbers: Vec<f64> = result["matrix"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|row| row.as_array().into_iter().flatten())
        .filter_map(Value::as_f64)
        .collect();
    assert_eq!(numbers, [58.0, 64.0, 139.0, 154.0]);
    assert_eq!((&result["rows"], &result["columns"]), (&json!(2), &json!(2)));

    for data in [
        json!({"matrixA": [[1, 2]], "matrixB": [[1, 2]]}),
        json!({"matrixA": [[1, 2], [3]], "matrixB": [[1], [2]]}),
        json!("no"),
    ] {
        let reply = client.try_submit(json!({"jobType": "matrix_multiplication", "data": data})).await;
        if reply.status == 202 {
            let id = reply.value()["jobId"].as_str().expect("an id").to_owned();
            let job = eventually("a hopeless job fails without being tried again", Duration::from_secs(30), || async {
                let job = client.job(&id).await;
                (job.status == "failed").then_some(job)
            })
            .await;
            assert!(job.error.is_some(), "the reason is given");
        } else {
            reply.problem_in(&[400, 422]);
        }
    }
}

#[tokio::test]
async fn similarities_of_small_vectors_are_the_known_ones() {
    let server = start().await;
    let client = server.client();
    let dense = json!([
        {"id": "a", "values": [1, 2, 3]}, {"id": "b", "values": [2, 4, 6]}, {"id": "c", "values": [3, 2, 1]},
    ]);
    let sparse = json!([
        {"id": "a", "ratings": {"x": 1, "y": 2}}, {"id": "b", "ratings": {"y": 3, "z": 1}}, {"id": "c", "ratings": {"z": 9}},
    ]);
    let cases = [
        (&dense, "pearson", vec![("a", "b", 1.0), ("a", "c", -1.0), ("b", "c", -1.0)]),
        (&dense, "cosine", vec![("a", "b", 1.0), ("a", "c", 10.0 / 14.0), ("b", "c", 10.0 / 14.0)]),
        (&sparse, "jaccard", vec![("b", "c", 0.5), ("a", "b", 1.0 / 3.0)]),
    ];
    for (entities, algorithm, wanted) in cases {
        let data = json!({"entities": entities, "algorithm": algorithm, "options": {"minSimilarity": -1}});
        let job = client.submit(json!({"jobType": "similarity_calculation", "data": data})).await;
        let job = client.job_in(&job.job_id, &["completed", "failed"]).await;
        assert_eq!(job.status, "completed", "{algorithm}: {:?}", job.error);
        let result: Value = serde_json::from_str(job.result.expect("a result").get()).expect("JSON");
        let pairs = result["pairs"].as_array().expect("pairs");
        for (number, (first, second, similarity)) in wanted.iter().enumerate() {
            assert_eq!(
                (&pairs[number][0], &pairs[number][1]),
                (&json!(first), &json!(second)),
                "{algorithm}: {result}"
            );
            let found = pairs[number][2].as_f64().expect("a number");
            assert!((found - similarity).abs() < 1e-12, "{algorithm}: {result}");
        }
        assert_eq!(
            (&result["algorithm"], &result["entities"], &result["truncated"]),
            (&json!(algorithm), &json!(3), &json!(false))
        );
    }
}

#[tokio::test]
async fn similarities_of_1599_wines_equal_numpys() {
    let server = start().await;
    let client = server.client();
    let fixtures = tidegate_tests::repository().join("tests/fixtures");
    let wines = std::fs::read_to_string(fixtures.join("winequality-red.csv")).expect("the fixture is there");
    let entities: Vec<Value> = wines
        .lines()
        .skip(1)
        .enumerate()
        .map(|(row, line)| {
            let values: Vec<f64> = line.split(';').take(11).map(|value| value.parse().expect("a number")).collect();
            json!({"id": row.to_string(), "values": values})
        })
        .collect();
    let data = json!({"entities": entities, "algorithm": "pearson", "options": {"topK": 5}});
    let job = client.submit(json!({"jobType": "similarity_calculation", "data": data})).await;
    let job = client.job_in(&job.job_id, &["completed", "failed"]).await;
    let result: Value = serde_json::from_str(job.result.expect("a result").get()).expect("JSON");
    assert_eq!((&result["entities"], &result["truncated"]), (&json!(1599), &json!(false)));

    let mut found: Vec<Vec<f64>> = vec![Vec::new(); 1599];
    let mut last = f64::INFINITY;
    for pair in result["pairs"].as_array().expect("pairs") {
        let similarity = pair[2].as_f64().expect("a number");
        assert!(similarity <= last, "sorted by similarity");
        last = similarity;
        for end in 0..2 {
            found[pair[end].as_str().expect("an id").parse::<usize>().expect("a row")].push(similarity);
        }
    }
    let expected = std::fs::read_to_string(fixtures.join("wine-pearson-top5.json")).expect("the fixture is there");
    let expected: Value = serde_json::from_str(&expected).expect("JSON");
    for (wine, found) in found.iter().enumerate() {
        for rank in 0..5 {
            let numpy = expected["top5"][wine][rank].as_f64().expect("a number");
            let ours = found.get(rank).copied().unwrap_or(f64::NAN);
            assert!((ours - numpy).abs() < 1e-9, "wine {wine}, rank {rank}: {ours} instead of {numpy}");
        }
    }
}

#[tokio::test]
async fn a_running_built_in_job_can_be_cancelled() {
    let server = start().await;
    let client = server.client();
    let job = client.submit(endless_job()).await;
    client.job_at_work(&job.job_id).await;
    let status = client.cancel(&job.job_id).await;
    assert!(["cancelling", "cancelled"].contains(&status.as_str()), "{status}");
    let ended = client.job_in(&job.job_id, &["cancelled", "completed", "failed"]).await;
    assert_eq!((ended.status.as_str(), ended.attempt), ("cancelled", 1));
}
