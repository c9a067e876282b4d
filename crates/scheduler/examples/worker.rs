//! A queue with a worker in 20 lines, durable in a folder: `cargo run -p tidegate-scheduler --example worker`.

use std::time::Duration;

use tidegate_metrics::Registry;
use tidegate_queue::{NewJob, QueueName, Queues, TABLES};
use tidegate_scheduler::{Config, Context, HandlerError, Scheduler};
use tidegate_store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let (registry, mail) = (Registry::new(), QueueName::new("mail")?);
    let store = Store::open(tidegate_store::Config::new(folder.path()), TABLES, &registry)?;
    let queues = Queues::open(store, tidegate_queue::Config::default(), &registry).await?;

    let scheduler = Scheduler::builder(queues.clone(), registry, Config::default())
        .serve(mail.clone())
        .handle("greet", |context: Context, name: String| async move {
            context.progress(0.5, "half way");
            if context.attempt() == 1 {
                return Err(HandlerError::retry_in("the first attempt always fails", Duration::from_millis(100)));
            }
            Ok(format!("hello {name}, on attempt {}", context.attempt()))
        })
        .start()
        .await?;

    let id = queues.queue(&mail).await?.push(NewJob::new("greet", r#""Ada""#)).await?.id;
    while !queues.job(&id).await?.state.is_finished() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("{id}: {}", String::from_utf8_lossy(&queues.job(&id).await?.result.unwrap_or_default()));
    println!("{:?}", scheduler.drain(Duration::from_secs(5)).await);
    Ok(queues.close().await?)
}
