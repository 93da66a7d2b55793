//! Netlink on the wire: messages of a datagram, and what the kernel says beside an error number
//! (include/uapi/linux/netlink.h).

use std::io;

use netlink_packet_core::{ErrorMessage, NetlinkBuffer};

/// One netlink message: its header's fields and all of its bytes.
pub(in crate::link) type RawMessage<'a> = (NetlinkBuffer<&'a [u8]>, &'a [u8]);

/// The messages of one datagram, each aligned to four bytes. Ends at the first that is cut short.
pub(in crate::link) fn messages(
    datagram: &[u8],
) -> impl Iterator<Item = io::Result<RawMessage<'_>>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = rest;
        rest = &[];
        let Ok(header) = NetlinkBuffer::new_checked(whole) else {
            return Some(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a netlink message is cut short",
            )));
        };
        let length = header.length() as usize;
        rest = whole.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(Ok((header, &whole[..length])))
    })
}

/// NLM_F_ACK_TLVS: attributes follow the acknowledgement (include/uapi/linux/netlink.h).
const ACK_TLVS: u16 = 0x200;
/// The header of the request that an acknowledgement repeats (NLM_F_CAPPED: no more than that).
const REQUEST_HEADER: usize = 16;
/// NLMSGERR_ATTR_MSG: a text for people.
const ATTR_MSG: u16 = 1;

/// The kernel's words beside the error number, if it had any.
pub(super) fn extended_message(flags: u16, error: &ErrorMessage) -> Option<String> {
    if flags & ACK_TLVS == 0 {
        return None;
    }
    let mut rest = error.header.get(REQUEST_HEADER..)?;
    while let [l0, l1, k0, k1, ..] = *rest {
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let value = rest.get(4..length)?;
        if u16::from_ne_bytes([k0, k1]) == ATTR_MSG {
            let text = value.split(|&byte| byte == 0).next()?;
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroI32;

    use super::*;

    #[test]
    fn datagrams_are_split_where_their_lengths_say() {
        let message = |length: u32, bytes: usize| {
            let mut message = vec![0; bytes];
            message[..4].copy_from_slice(&length.to_ne_bytes());
            message
        };
        for (case, datagram, good, cut_short) in [
            ("empty", vec![], 0, false),
            ("one", message(16, 16), 1, false),
            (
                "two, the first padded",
                [message(18, 20), message(16, 16)].concat(),
                2,
                false,
            ),
            (
                "second cut short",
                [message(16, 16), message(32, 16)].concat(),
                1,
                true,
            ),
            ("length below a header", message(4, 16), 0, true),
            ("half a header", vec![16, 0, 0, 0, 0], 0, true),
        ] {
            let found: Vec<_> = messages(&datagram).collect();
            assert_eq!(found.iter().filter(|m| m.is_ok()).count(), good, "{case}");
            assert_eq!(found.iter().any(|m| m.is_err()), cut_short, "{case}");
        }
    }

    #[test]
    fn the_kernels_words_are_found_behind_the_requests_header() {
        let mut header = vec![0; REQUEST_HEADER];
        header.extend([8, 0, 2, 0, 1, 0, 0, 0]); // NLMSGERR_ATTR_OFFS
        header.extend([11, 0, 1, 0]);
        header.extend(b"no way\0\0");
        let mut error = ErrorMessage::default();
        error.code = NonZeroI32::new(-libc::EINVAL);
        error.header = header;
        assert_eq!(
            extended_message(ACK_TLVS, &error).as_deref(),
            Some("no way")
        );
        assert_eq!(extended_message(0, &error), None);
        for cut in 0..error.header.len() {
            let mut short = error.clone();
            short.header.truncate(cut);
            let found = extended_message(ACK_TLVS, &short);
            assert!(found.is_none_or(|text| text == "no way"), "cut at {cut}");
        }
    }
}
