//! A worker process to be killed: `soak_worker ADDRESS QUEUE COUNT` claims `COUNT` jobs at the server there, says
//! `holds COUNT`, and keeps their leases by a beat every 200 ms, saying `beats N`, until something kills it.

use std::time::Duration;

use tidegate_tests::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, queue, count] = &arguments[..] else { panic!("soak_worker ADDRESS QUEUE COUNT") };
    let client = Client::new(address.parse().expect("an address and port"), None);
    let count: usize = count.parse().expect("a number of jobs");
    let name = format!("process-{}", std::process::id());
    let mut leases: Vec<String> = Vec::new();
    for beats in 0_u64.. {
        if !leases.is_empty() {
            let held: Vec<&str> = leases.iter().map(String::as_str).collect();
            let answer = client.beat(queue, &name, &held).await;
            assert!(answer["stale"].as_array().is_some_and(Vec::is_empty), "a lease ran out under beats: {answer}");
            println!("beats {beats}");
        }
        if leases.len() == count {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        }
        let claims = client.claim(queue, &name, count - leases.len(), 100).await;
        leases.extend(claims.jobs.into_iter().map(|job| job.lease));
        if leases.len() == count {
            println!("holds {count}");
        }
    }
}
