//! Target `texts`.

use mobctl::config::Config;
use mobctl::control::{Request, Response};
use mobctl::keyfile::{self, Kind};
use mobctl::tuple;

/// Runs the target: the first byte says what the rest is.
pub(crate) fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    let text = str::from_utf8(rest);
    match (kind % 5, text) {
        (0, Ok(text)) => match Config::parse(text) {
            Ok(config) => {
                assert!(config.port != 0 && (1..=86_400).contains(&config.grace) && config.udp_idle <= 86_400);
                assert!(config.group_keys.iter().chain([&config.host_key]).all(|path| path.is_absolute()));
                assert!(!config.mobile || !config.peers.is_empty());
                assert!(!config.listen.is_empty());
            }
            Err(faults) => {
                assert!(!faults.is_empty(), "refused without a reason");
                let lines = text.split('\n').count();
                assert!(faults.iter().all(|fault| (1..=lines).contains(&fault.line)), "{faults:?}");
                assert!(faults.iter().all(|fault| !fault.message.is_empty()));
            }
        },
        (1, _) => {
            for kind in [Kind::Host, Kind::Group] {
                if let Ok(key) = keyfile::parse(rest, kind) {
                    let digits: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
                    assert_ne!(*key, [0; 32]);
                    let lower = String::from_utf8_lossy(rest).to_lowercase();
                    assert!(lower.contains(&digits) && lower.contains(kind.label()));
                }
            }
        }
        (2, Ok(text)) => {
            if let Ok(request) = serde_json::from_str::<Request>(text) {
                let line = serde_json::to_string(&request).expect("a request is a line");
                assert_eq!(serde_json::from_str::<Request>(&line).expect("the same"), request);
            }
            if let Ok(response) = serde_json::from_str::<Response>(text) {
                let _ = serde_json::to_string(&response);
            }
        }
        (3, Ok(text)) => {
            let mut words = text.split_whitespace();
            let mut end = || tuple::parse_end(words.next().unwrap_or_default());
            if let (Ok(local), Ok(remote)) = (end(), end())
                && let Ok(side) = tuple::side(6, local, remote)
            {
                let (a, b) = tuple::ends(&side).expect("it was made from ends");
                assert_eq!((a.port(), b.port()), (local.port(), remote.port()));
                assert_eq!((a.ip(), b.ip()), (local.ip().to_canonical(), remote.ip().to_canonical()));
            }
        }
        (4, Ok(text)) => {
            if let Ok(prefix) = text.parse::<mobconn_dprp::Prefix>() {
                assert_eq!(prefix.to_string().parse(), Ok(prefix));
            }
            if let Ok(key) = text.parse::<mobconn_dprp::PublicKey>() {
                assert_eq!(key.to_string().parse(), Ok(key));
            }
        }
        _ => {}
    }
}
