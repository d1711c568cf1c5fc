//! The wait between two tries of one exchange.

use std::time::Duration;

use tokio::time::Instant;

use crate::Error;
use crate::jetstream::gateway::exchange::Reply;
use crate::trace::event;

/// Repeats an exchange until it has an answer.
pub(super) async fn until_answered<T, F>(
    attempt: Duration,
    deadline: Instant,
    exchange: impl Fn(Instant) -> F,
) -> Result<T, Error>
where
    F: Future<Output = Reply<T>>,
{
    let mut pause = Pause::new(deadline);
    loop {
        match exchange(deadline.min(Instant::now() + attempt)).await {
            Reply::Done(answer) => return Ok(answer),
            Reply::Not(error) => return Err(error),
            Reply::Again(error) => {
                event!(exchange: debug, "a request is sent again", error);
                pause.after(error).await?;
            }
        }
    }
}

/// The backoff between two tries: short at first, never past the deadline.
pub(in crate::jetstream) struct Pause {
    deadline: Instant,
    next: Duration,
    /// The last error that says more than `Timeout`.
    said: Option<Error>,
}

impl Pause {
    pub(in crate::jetstream) fn new(deadline: Instant) -> Self {
        Self { deadline, next: Duration::from_millis(1), said: None }
    }

    /// Waits before the next try. After the deadline, fails with the most informative error so far.
    pub(in crate::jetstream) async fn after(&mut self, error: Error) -> Result<(), Error> {
        if error != Error::Timeout {
            self.said = Some(error);
        }
        let until = Instant::now() + self.next;
        self.next = (self.next * 2).min(Duration::from_millis(50));
        if until >= self.deadline {
            tokio::time::sleep_until(self.deadline).await;
            return Err(self.said.take().unwrap_or(Error::Timeout));
        }
        tokio::time::sleep_until(until).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn at_the_deadline_the_error_that_says_most_is_told() {
        let reason = || Error::unavailable("no leader");
        let said = async |errors: [Error; 2]| {
            let mut pause = Pause::new(Instant::now() + Duration::from_millis(200));
            for error in errors.into_iter().cycle() {
                if let Err(told) = pause.after(error).await {
                    return told;
                }
            }
            Error::Closed
        };
        let begun = Instant::now();
        assert_eq!(said([reason(), Error::Timeout]).await, reason());
        assert_eq!(begun.elapsed(), Duration::from_millis(200));
        assert_eq!(said([Error::Timeout, Error::Timeout]).await, Error::Timeout);
    }
}
