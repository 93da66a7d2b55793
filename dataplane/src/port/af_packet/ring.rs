//! The ring of a packet socket (TPACKET_V3): blocks of memory that the kernel fills with frames of any
//! length and hands over whole. This file alone reads them.
//!
//! After Documentation/networking/packet_mmap.rst and net/packet/af_packet.c, `prb_*`. What stands in a
//! block is never trusted beyond the block's own bounds.

// Reads memory that the kernel writes.
#![allow(unsafe_code)]

use std::{
    any::Any,
    fmt,
    ptr::NonNull,
    sync::atomic::{AtomicU32, Ordering},
};

/// Bytes of a block: the longest frame of all, of 64 KiB, with its headers fits one. The kernel wants whole
/// pages, and a frame does not go over a block's end.
pub const BLOCK: usize = 128 << 10;

/// Where `block_status`, `num_pkts` and `offset_to_first_pkt` are in a block (`struct tpacket_block_desc`
/// and `struct tpacket_hdr_v1`, include/uapi/linux/if_packet.h).
const STATUS: usize = 8;
const FRAMES: usize = 12;
const FIRST: usize = 16;

/// A tagged frame's type where the kernel does not tell which it is.
const CUSTOMER_TAG: u16 = 0x8100;

/// One frame as it lies in the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived<'a> {
    /// Its bytes, as many as were captured.
    pub bytes: &'a [u8],
    /// How long it was, the tag beside it left out.
    pub len: usize,
    /// When it came, in nanoseconds since 1970.
    pub time: u64,
    /// The VLAN tag that the kernel keeps beside the frame: its type and its control information.
    pub tag: Option<(u16, u16)>,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<'a> {
    /// A frame.
    Frame(Arrived<'a>),
    /// So many frames of a block cannot be found, since its headers contradict themselves: the kernel does not
    /// do that.
    Broken(u64),
    /// The kernel has filled no further block.
    Nothing,
}

/// The ring, as its reader has it.
pub struct Ring {
    base: NonNull<u8>,
    block: usize,
    blocks: u32,
    /// The block in hand or waited for.
    current: u32,
    /// Frames of the block in hand that were not read; 0 without one.
    left: u32,
    /// Where the next of them begins in it.
    at: usize,
    /// Whether the block in hand is still the reader's.
    held: bool,
    /// How often the reader has come to the first block again.
    rounds: u64,
    /// Unmaps the memory when it is dropped.
    _owner: Box<dyn Any + Send>,
}

// SAFETY: the memory is mapped for as long as the ring lives, wherever it goes, and is read through
// `&mut self` alone.
unsafe impl Send for Ring {}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("blocks", &self.blocks)
            .field("current", &self.current)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring over memory that the kernel fills.
    ///
    /// # Safety
    ///
    /// `base` must be aligned to 8 and valid for reads and writes of `blocks * block` bytes for as long as
    /// `owner` is not dropped. A block whose status says so (TP_STATUS_USER) is changed by nobody until the
    /// ring has given it back.
    pub(super) unsafe fn over(
        base: NonNull<u8>,
        block: usize,
        blocks: u32,
        owner: Box<dyn Any + Send>,
    ) -> Self {
        assert!(block >= 64 && block.is_multiple_of(8) && blocks > 0);
        Self {
            base,
            block,
            blocks,
            current: 0,
            left: 0,
            at: 0,
            held: false,
            rounds: 0,
            _owner: owner,
        }
    }

    /// A ring of one block, which the kernel has handed over with these bytes behind its status: for fuzzers.
    #[cfg(feature = "fake-kernel")]
    pub fn of_block(bytes: &[u8]) -> Self {
        let mut block = vec![0; STATUS];
        block.extend(libc::TP_STATUS_USER.to_ne_bytes());
        block.extend_from_slice(bytes);
        block.resize(block.len().next_multiple_of(8).max(64), 0);
        let (words, _) = block.as_chunks();
        let mut memory: Vec<u64> = words.iter().map(|word| u64::from_ne_bytes(*word)).collect();
        let base = NonNull::new(memory.as_mut_ptr()).expect("a vector's memory");
        // SAFETY: the memory is aligned to 8, of that size, and stays where it is for as long as the vector
        // lives, which nobody else has.
        unsafe { Self::over(base.cast(), block.len(), 1, Box::new(memory)) }
    }

    /// The status of the block that is waited for or in hand.
    #[inline]
    fn status(&self) -> &AtomicU32 {
        let at = self.current as usize * self.block + STATUS;
        // SAFETY: within the memory and aligned; the kernel reads and writes the word as a whole.
        unsafe { AtomicU32::from_ptr(self.base.as_ptr().add(at).cast()) }
    }

    /// The block in hand.
    #[inline]
    fn bytes(&self) -> &[u8] {
        debug_assert!(self.held);
        let at = self.current as usize * self.block;
        // SAFETY: within the memory. The block is the reader's until `give_back`, which borrows the ring
        // exclusively; its status word, which `status` reads and writes, is not behind a reference at that time.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(at), self.block) }
    }

    /// Whether there is something to be read.
    #[inline]
    pub fn readable(&mut self) -> bool {
        self.release();
        // Acquire: what the kernel has written before it handed the block over is seen
        // (prb_close_block, smp_wmb).
        self.held || self.status().load(Ordering::Acquire) & libc::TP_STATUS_USER != 0
    }

    /// How often the whole ring was read.
    pub fn rounds(&self) -> u64 {
        self.rounds
    }

    /// The next frame. A block goes back to the kernel with the call after its last frame.
    #[inline]
    pub fn read(&mut self) -> Next<'_> {
        while self.left == 0 {
            if !self.readable() {
                return Next::Nothing;
            }
            self.held = true;
            let block = self.bytes();
            let (frames, first) = (u32_at(block, FRAMES), u32_at(block, FIRST));
            self.left = frames.unwrap_or(0);
            self.at = first.unwrap_or(0) as usize;
        }
        let Some(found) = find(self.bytes(), self.at) else {
            return Next::Broken(u64::from(std::mem::take(&mut self.left)));
        };
        self.left -= 1;
        // Zero is the last one's, and leads nowhere; all else leads on, so that every block comes to its end.
        self.at = match found.step {
            0 => usize::MAX,
            step => self.at.saturating_add(step as usize),
        };
        Next::Frame(Arrived {
            bytes: &self.bytes()[found.begin..found.begin + found.captured],
            len: found.len.max(found.captured),
            time: found.time,
            tag: found.tag,
        })
    }

    /// Lets the kernel have the block in hand, if its frames were all read: it can fill it while the reader is
    /// busy with them.
    #[inline]
    pub fn release(&mut self) {
        if self.held && self.left == 0 {
            self.give_back();
        }
    }

    #[inline]
    fn give_back(&mut self) {
        // Release: the reader has done with the bytes.
        self.status()
            .store(libc::TP_STATUS_KERNEL, Ordering::Release);
        self.held = false;
        self.current += 1;
        if self.current == self.blocks {
            self.current = 0;
            self.rounds += 1;
        }
    }
}

#[inline]
fn u16_at(block: &[u8], at: usize) -> Option<u16> {
    let word = block.get(at..at.checked_add(2)?)?;
    Some(u16::from_ne_bytes([word[0], word[1]]))
}

#[inline]
fn u32_at(block: &[u8], at: usize) -> Option<u32> {
    let word = block.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
}

/// What a header says.
struct Found {
    /// Where the frame begins in the block, and its bytes there: within the block.
    begin: usize,
    captured: usize,
    len: usize,
    time: u64,
    tag: Option<(u16, u16)>,
    /// From this header to the next.
    step: u32,
}

/// Reads the header (`struct tpacket3_hdr`) that begins at `at`. `None` when it or its frame is not inside of
/// the block.
#[inline]
fn find(block: &[u8], at: usize) -> Option<Found> {
    let header = block.get(at..at.checked_add(size_of::<libc::tpacket3_hdr>())?)?;
    let (seconds, nanoseconds) = (u32_at(header, 4)?, u32_at(header, 8)?);
    let captured = u32_at(header, 12)? as usize;
    let status = u32_at(header, 20)?;
    let begin = at + usize::from(u16_at(header, 24)?);
    if begin.checked_add(captured)? > block.len() {
        return None;
    }
    let tag = match status {
        s if s & libc::TP_STATUS_VLAN_VALID == 0 => None,
        s if s & libc::TP_STATUS_VLAN_TPID_VALID == 0 => {
            Some((CUSTOMER_TAG, u32_at(header, 32)? as u16))
        }
        _ => Some((u16_at(header, 36)?, u32_at(header, 32)? as u16)),
    };
    Some(Found {
        begin,
        captured,
        len: u32_at(header, 16)? as usize,
        time: u64::from(seconds) * 1_000_000_000 + u64::from(nanoseconds),
        tag,
        step: u32_at(header, 0)?,
    })
}
