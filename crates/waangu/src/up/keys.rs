//! The gateway's keys at the start of a platform: made on the first start, taken over from the files
//! of older programs, published before anybody needs them. Later the control plane keeps them.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use waangu_control::KeyFiles;
use waangu_identity::KeyRing;
use waangu_kernel::{Clock as _, SystemClock};

use super::secrets::Secrets;
use super::state::State;
use crate::config::KeyFile;
use crate::failure::{Failure, Of as _};

const RING: &str = "keys/ring.json";
const PUBLIC: &str = "keys/context.json";

/// Where programs before the ring kept the key that signs contexts.
const FORMER: &str = "keys/gateway.p8";

/// Where the keys are; they exist from now on.
pub(crate) fn ensure(
    state: &State,
    secrets: &mut Secrets,
    grace: i64,
) -> Result<KeyFiles, Failure> {
    let files = KeyFiles {
        ring: state.path(RING),
        public: state.path(PUBLIC),
        grace,
    };
    let ring = if let Some(text) = state.read(RING)? {
        KeyRing::from_json(text.as_bytes()).of(files.ring.display())?
    } else {
        let ring = first(state, secrets)?;
        state.write(RING, &ring.to_json().of(RING)?)?;
        ring
    };
    files.publish(&ring.public().of(files.ring.display())?)?;
    // The old places, which would outlive a rotation.
    if secrets.context_key.take().is_some() {
        secrets.save(state)?;
    }
    remove(&state.path(FORMER))?;
    Ok(files)
}

fn first(state: &State, secrets: &Secrets) -> Result<KeyRing, Failure> {
    let (now, former) = (SystemClock.unix_seconds(), state.path(FORMER));
    match &secrets.context_key {
        Some(KeyFile { kid, secret }) if former.exists() => {
            let pkcs8 = std::fs::read(&former).of(former.display())?;
            let secret = STANDARD.decode(secret).of("context key")?.try_into();
            let secret = secret.map_err(|_wrong_length: Vec<u8>| {
                Failure::failed("the context key does not have 32 bytes")
            })?;
            KeyRing::of(&pkcs8, *kid, secret, now).of(former.display())
        }
        _ => KeyRing::generate(now).of("key"),
    }
}

fn remove(path: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).of(path.display()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use waangu_identity::SigningKey;

    use super::*;

    /// After an upgrade, a platform whose keys were forgotten would refuse every request until its
    /// databases are told; one whose old files stay keeps a key that nobody can retire.
    #[test]
    fn former_keys_are_taken_over_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path()).unwrap();
        let mut secrets = Secrets::load(&state, &[], &[]).unwrap();
        let pkcs8 = SigningKey::generate_pkcs8().unwrap();
        state.write(FORMER, &pkcs8).unwrap();
        secrets.context_key = Some(KeyFile {
            kid: 7,
            secret: STANDARD.encode([9; 32]),
        });
        secrets.save(&state).unwrap();

        let files = ensure(&state, &mut secrets, 75).unwrap();
        let read = || KeyRing::from_json(&std::fs::read(&files.ring).unwrap()).unwrap();
        let ring = read();
        let signing = ring.signing().unwrap();
        let former = SigningKey::from_pkcs8(&pkcs8).unwrap();
        assert_eq!(signing.context.public(), former.public());
        assert_eq!(signing.proof.kid(), 7);
        assert!(!state.path(FORMER).exists());
        let left = state.read("secrets.toml").unwrap().unwrap();
        assert!(!left.contains("context_key"), "still there");
        let mut again = Secrets::load(&state, &[], &[]).unwrap();
        ensure(&state, &mut again, 75).unwrap();
        assert_eq!(read(), ring);
    }
}
