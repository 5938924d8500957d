//! The one place where threads that block meet tasks that do not.

use tokio::sync::oneshot;

/// A thread could not be started, or died of a panic; what it had sent before is kept.
#[derive(Debug, thiserror::Error)]
#[error("the {name} thread did not come to its end: its panic is a bug in dupfind")]
pub struct ThreadFailed {
    name: &'static str,
}

/// Runs blocking work on a named thread of its own; the future ends when the work does.
///
/// The work begins at once and goes on if the future is dropped, so it must end by itself when its
/// channels close.
pub fn run_blocking<T, F>(name: &'static str, work: F) -> impl Future<Output = Result<T, ThreadFailed>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    // If the thread cannot be started, or panics, the sender is dropped and the receiver is told.
    let _ = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let _ = sender.send(work());
    });
    async move { receiver.await.map_err(|_| ThreadFailed { name }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_becomes_an_error() {
        assert_eq!(run_blocking("good", || 7).await.unwrap(), 7);
        let bad = run_blocking("bad", || panic!("on purpose"));
        let error: Result<(), _> = bad.await;
        assert!(error.unwrap_err().to_string().contains("bad"));
    }
}
