//! Noticing that the files have changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::interval;

use super::files::{Content, TlsError};
use super::{Tls, TlsFiles};

/// Between two looks at the files. What they say is taken once two looks have found the same, so that of a
/// pair that is replaced one by one no half is taken. The files are small, and reading them shows every
/// way in which they may change: links that lead elsewhere, also those on their way, and file systems that
/// give no notice.
const LOOK: Duration = Duration::from_secs(1);

/// What has been found so far.
#[derive(Debug, Default)]
struct Found {
    /// What the last look has found; nothing where a file could not be read.
    last: Option<Content>,
    told: Told,
}

/// What was told of files that are not in use.
#[derive(Debug, Default, PartialEq, Eq)]
enum Told {
    #[default]
    Nothing,
    Unreadable,
    /// They were taken, or refused.
    Tried(Content),
}

/// What there is to be done after a look.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Nothing,
    Take(Content),
    TellUnreadable,
}

impl Tls {
    /// Takes what the files say whenever that has changed, and tells what has become of it: the settings
    /// whose files say something else, or why what was in use stays so.
    ///
    /// Cancel safe.
    pub async fn follow(self: Arc<Self>, tell: impl Fn(Result<Vec<&'static str>, TlsError>)) {
        let mut looks = interval(LOOK);
        let mut found = Found { last: Some(self.in_use().clone()), told: Told::Nothing };
        loop {
            looks.tick().await;
            let read = look(self.files.clone()).await;
            let next = found.next(read.as_ref().ok(), &self.in_use());
            match (next, read) {
                (Next::Take(content), _) => tell(self.take(content)),
                (Next::TellUnreadable, Err(error)) => tell(Err(error)),
                _ => {}
            }
        }
    }
}

async fn look(files: TlsFiles) -> Result<Content, TlsError> {
    let read = spawn_blocking(move || files.read()).await;
    read.expect("reading files does not panic, and nobody aborts it")
}

impl Found {
    fn next(&mut self, now: Option<&Content>, in_use: &Content) -> Next {
        let is_settled = self.last.as_ref() == now;
        self.last = now.cloned();
        if now == Some(in_use) {
            self.told = Told::Nothing;
            return Next::Nothing;
        }
        let told = now.map_or(Told::Unreadable, |content| Told::Tried(content.clone()));
        if !is_settled || self.told == told {
            return Next::Nothing;
        }
        self.told = told;
        now.map_or(Next::TellUnreadable, |content| Next::Take(content.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(text: &str) -> Content {
        Content::of(text)
    }

    #[test]
    fn what_has_settled_is_taken_or_told_once() {
        let (old, half, new) = (content("old"), content("half"), content("new"));
        let mut found = Found { last: Some(old.clone()), told: Told::Nothing };
        let mut look = |now: Option<&Content>, in_use: &Content| found.next(now, in_use);
        assert_eq!(look(Some(&old), &old), Next::Nothing);
        assert_eq!(look(Some(&half), &old), Next::Nothing);
        assert_eq!(look(Some(&new), &old), Next::Nothing, "it was another one before");
        assert_eq!(look(Some(&new), &old), Next::Take(new.clone()));
        assert_eq!(look(Some(&new), &old), Next::Nothing, "it could not be used");
        assert_eq!(look(None, &old), Next::Nothing);
        assert_eq!(look(None, &old), Next::TellUnreadable);
        assert_eq!(look(None, &old), Next::Nothing);
        assert_eq!(look(Some(&old), &old), Next::Nothing);
        assert_eq!(look(Some(&new), &old), Next::Nothing);
        assert_eq!(look(Some(&new), &old), Next::Take(new.clone()), "it may be told again");
        assert_eq!(look(Some(&new), &new), Next::Nothing);
    }
}
