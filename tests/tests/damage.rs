//! Disks that are damaged or full: the start stops with the place named, or nothing that was acknowledged is missing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use tidegate_tests::{Builder, Client, Server, SmallDisk};

type Files = BTreeMap<PathBuf, Vec<u8>>;

/// A server whose data lie in memory where the system offers that: dozens of starts, none of them about fsync.
fn quick() -> (TempDir, Builder) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { TempDir::with_prefix_in("tidegate-", memory) } else { TempDir::new() };
    let folder = folder.expect("a temporary folder can be made");
    let builder = Server::builder().data(&folder.path().join("data"));
    (folder, builder)
}

/// Every file of a folder with its content.
fn read_all(folder: &Path) -> Files {
    let mut files = Files::new();
    for entry in std::fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the folder is readable").path();
        if path.is_dir() {
            files.extend(read_all(&path));
        } else {
            files.insert(path.clone(), std::fs::read(&path).expect("the file is readable"));
        }
    }
    files
}

/// Puts a folder back to what it was.
fn write_all(folder: &Path, files: &Files) {
    std::fs::remove_dir_all(folder).expect("the folder can be removed");
    std::fs::create_dir_all(folder).expect("the folder can be made");
    for (path, content) in files {
        std::fs::create_dir_all(path.parent().expect("a file lies in a folder")).expect("folders can be made");
        std::fs::write(path, content).expect("files can be written");
    }
}

/// 300 jobs, each with a payload of its own that is easy to find on disk.
async fn fill(client: &Client) -> BTreeMap<String, String> {
    let mut payloads = BTreeMap::new();
    for round in 0..3 {
        let jobs: Vec<Value> = (0..100)
            .map(|n| json!({"jobType": "a", "data": format!("payload-{round}-{n}-{}", "z".repeat(200))}))
            .collect();
        for (answer, job) in client.submit_all(&jobs).await.into_iter().zip(&jobs) {
            payloads.insert(answer.job_id, job["data"].to_string());
        }
    }
    payloads
}

/// Starts on what is there and judges it; says what happened.
async fn judge(builder: &Builder, wanted: &BTreeMap<String, String>, damage: &str) -> &'static str {
    let server = match builder.try_start().await {
        Ok(server) => server,
        Err(exit) => {
            let said = exit.said();
            assert!(exit.code.is_some_and(|code| code != 0), "{damage}: a signal or 0 instead of an error: {said}");
            assert!(!said.contains("panicked"), "{damage}: {said}");
            let folder = builder.data_folder().display().to_string();
            assert!(said.contains(&folder), "{damage}: the place is not named: {said}");
            return "refused";
        }
    };
    let client = server.client();
    let mut missing = wanted.clone();
    loop {
        let claims = client.claim("default", "w", 1000, 0).await;
        if claims.jobs.is_empty() {
            break;
        }
        for job in claims.jobs {
            let payload = missing.remove(&job.job_id);
            assert_eq!(payload.as_deref(), Some(job.data.get()), "{damage}: job {} came back changed", job.job_id);
        }
    }
    assert!(missing.is_empty(), "{damage}: {} of {} acknowledged jobs are missing", missing.len(), wanted.len());
    server.kill().await;
    "intact"
}

async fn survives_flips(clean_stop: bool) {
    let (_folder, builder) = quick();
    let server = builder.start().await;
    let wanted = fill(&server.client()).await;
    let builder = if clean_stop { server.stop().await } else { server.kill().await };
    let files = read_all(builder.data_folder());
    let mut outcomes = BTreeMap::new();
    for (path, content) in &files {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        // Where our payloads lie, the middle, and in larger files the ends.
        let payloads = find_all(content, b"payload-");
        let mut places: Vec<usize> =
            [1, 2].iter().filter_map(|part| payloads.get(payloads.len() * part / 3).copied()).collect();
        places.extend((used > 0).then_some(used / 2));
        places.extend((used > 1000).then_some([0, used.saturating_sub(1)]).into_iter().flatten());
        for place in places {
            let mut damaged = files.clone();
            let byte = &mut damaged.get_mut(path).expect("the file is there")[place];
            *byte ^= 0x40;
            write_all(builder.data_folder(), &damaged);
            let damage = format!("bit flipped at {place} of {} in {}", content.len(), path.display());
            *outcomes.entry(judge(&builder, &wanted, &damage).await).or_insert(0) += 1;
        }
    }
    assert!(outcomes.get("refused").is_some_and(|count| *count > 0), "no flip was ever noticed: {outcomes:?}");
    write_all(builder.data_folder(), &files);
    assert_eq!(judge(&builder, &wanted, "no damage").await, "intact");
}

#[tokio::test]
async fn a_flipped_bit_after_a_clean_stop_never_loses_a_job_silently() {
    survives_flips(true).await;
}

#[tokio::test]
async fn a_flipped_bit_after_a_kill_never_loses_a_job_silently() {
    survives_flips(false).await;
}

#[tokio::test]
async fn a_lost_or_shortened_file_never_loses_a_job_silently() {
    let (_folder, builder) = quick();
    let server = builder.start().await;
    let wanted = fill(&server.client()).await;
    let builder = server.kill().await;
    let files = read_all(builder.data_folder());
    for (path, content) in &files {
        let used = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        if used == 0 {
            continue;
        }
        let mut lost = files.clone();
        lost.remove(path);
        write_all(builder.data_folder(), &lost);
        judge(&builder, &wanted, &format!("{} removed", path.display())).await;
        let mut short = files.clone();
        short.insert(path.clone(), content[..used / 2].to_vec());
        write_all(builder.data_folder(), &short);
        judge(&builder, &wanted, &format!("{} cut at {} of {used}", path.display(), used / 2)).await;
    }
}

#[tokio::test]
async fn repair_sets_damage_aside_and_says_so() {
    let server = Server::start().await;
    let wanted = fill(&server.client()).await;
    let builder = server.kill().await;
    let files = read_all(builder.data_folder());
    let (path, place) = files
        .iter()
        .find_map(|(path, content)| find_all(content, b"payload-1-50-").first().map(|place| (path.clone(), *place)))
        .expect("the payloads lie somewhere as they are");
    let mut damaged = files.clone();
    damaged.get_mut(&path).expect("the file is there")[place] ^= 0x40;
    write_all(builder.data_folder(), &damaged);
    let exit = builder.refusal().await;
    assert!(exit.said().contains("--repair"), "the way out is named: {}", exit.said());
    let mut server = builder.args(["--repair"]).start().await;
    assert!(server.process().said().contains("aside"), "what was lost is told: {}", server.process().said());
    let claims = server.client().claim("default", "w", 1000, 0).await;
    for job in &claims.jobs {
        assert_eq!(wanted.get(&job.job_id).map(String::as_str), Some(job.data.get()), "nothing damaged is handed out");
    }
    assert!(!claims.jobs.is_empty(), "what was whole is kept");
}

#[tokio::test]
async fn a_full_disk_is_told_and_loses_nothing_that_was_acknowledged() {
    let (disk, builder) = SmallDisk::prepare(Server::builder(), 96 << 20);
    let server = builder.start().await;
    let client = server.client();
    let data = "x".repeat(100_000);
    let submit = || json!({"jobType": "a", "data": data, "options": {"queue": "full"}});
    let mut acknowledged = Vec::new();
    let refused = loop {
        let reply = client.try_submit(submit()).await;
        if reply.status != 202 {
            break reply;
        }
        acknowledged.push(reply.value()["jobId"].as_str().expect("an id").to_owned());
        assert!(acknowledged.len() < 2000, "200 MB fit on a disk of 96");
    };
    refused.problem_in(&[503, 507]);
    assert!(!acknowledged.is_empty());
    // Reading goes on, and so does refusing.
    assert_eq!(client.job(&acknowledged[0]).await.status, "queued");
    assert_eq!(client.get("/livez").await.status, 200);
    client.try_submit(submit()).await.problem_in(&[503, 507]);

    let builder = disk.grow(server.kill().await);
    let server = builder.start().await;
    let client = server.client();
    for id in &acknowledged {
        assert_eq!(client.job(id).await.status, "queued");
    }
    let mut claimed = 0;
    loop {
        let claims = client.claim("full", "w", 100, 0).await;
        if claims.jobs.is_empty() {
            break;
        }
        for job in claims.jobs {
            assert_eq!(job.data.get().len(), data.len() + 2);
            claimed += 1;
        }
    }
    assert!(claimed >= acknowledged.len(), "{claimed} of {} came back", acknowledged.len());
    client.submit(submit()).await;
    server.kill().await;
}

fn find_all(content: &[u8], text: &[u8]) -> Vec<usize> {
    content.windows(text.len()).enumerate().filter(|(_, window)| *window == text).map(|(place, _)| place).collect()
}
