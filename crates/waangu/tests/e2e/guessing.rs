//! Somebody who tries passwords.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep};

use crate::support::{Answer, PASSWORD, Platform, shared};

/// Wrong passwords until the directory says stop; returns how many it looked at.
async fn guess(platform: &Platform, name: &str) -> (usize, Answer) {
    for number in 0..12 {
        let answer = platform.token(name, "wrong password").await;
        if answer.status == 429 {
            return (number, answer);
        }
        assert_eq!(answer.status, 400, "{}", answer.text);
        assert_eq!(answer.json()["error"], "invalid_grant");
    }
    panic!("{name}: twelve guesses and nobody minds");
}

fn pause(answer: &Answer) -> u64 {
    answer.header("retry-after").unwrap().parse().unwrap()
}

/// Without a brake a dictionary opens any account in an hour; with one that only real users get, it
/// tells who is a user.
#[tokio::test]
async fn guesses_are_slowed_whether_or_not_the_user_exists() {
    let platform = shared().await;
    platform.tenant("target", "shared").await;
    let mut looked_at = Vec::new();
    for name in ["root@target", "ghost@target", "ghost@no-such-tenant"] {
        let (guesses, stopped) = guess(platform, name).await;
        assert!((5..=6).contains(&guesses), "{name}: {guesses}");
        let seconds = pause(&stopped);
        assert!((1..=2).contains(&seconds), "{name}: {seconds}");
        looked_at.push((guesses, stopped.text));
    }
    looked_at.dedup();
    assert_eq!(looked_at.len(), 1, "they can be told apart: {looked_at:?}");

    // Guess until the pause is long enough to be looked at; then even the right password has to wait.
    let begun = Instant::now();
    loop {
        sleep(Duration::from_millis(300)).await;
        let wrong = platform.token("root@target", "wrong password").await;
        if wrong.status == 429 && pause(&wrong) >= 2 {
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(15),
            "pauses do not grow"
        );
    }
    let right = platform.token("root@target", PASSWORD).await;
    assert_eq!(right.status, 429, "{}", right.text);
    sleep(Duration::from_secs(pause(&right))).await;
    platform.sign_in("root@target", PASSWORD).await;
}

/// Guesses sent all at once must not slip through before the first is counted.
#[tokio::test]
async fn guesses_at_once_are_counted_one_by_one() {
    let platform = shared().await;
    platform.tenant("crowd", "shared").await;
    let guesses = (0..40).map(|_| platform.token("root@crowd", "wrong password"));
    let answers = join_all(guesses).await;
    let looked_at = answers.iter().filter(|answer| answer.status == 400).count();
    assert!(looked_at <= 8, "{looked_at} of 40 guesses were looked at");
}

/// A till that starts ten programs signs in ten times at once. Attempts in hand count as failures until
/// they are known to be good, so some may be told to come again; none may be locked out.
#[tokio::test]
async fn right_passwords_at_once_are_all_welcome() {
    let platform = shared().await;
    platform.tenant("tills", "shared").await;
    let till = || async {
        for _attempt in 0..4 {
            let answer = platform.token("root@tills", PASSWORD).await;
            if answer.status != 429 {
                return answer.status;
            }
            assert!(pause(&answer) <= 2, "{}", answer.text);
            sleep(Duration::from_secs(pause(&answer))).await;
        }
        429
    };
    let statuses = join_all((0..10).map(|_| till())).await;
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}
