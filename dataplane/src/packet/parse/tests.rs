//! Tables of frames and of what the parser must say of them.

use super::*;

#[test]
fn short_frames_are_truncated() {
    for length in 0..14 {
        assert_eq!(parse(&vec![0; length]).fault, Some(Fault::Truncated));
    }
}

#[test]
fn frames_longer_than_offsets_reach_are_refused() {
    assert_eq!(parse(&vec![0; MAX_FRAME]).fault, None);
    assert_eq!(
        parse(&vec![0; MAX_FRAME + 1]),
        Headers {
            fault: Some(Fault::Length),
            ..Headers::default()
        }
    );
}
