//! A mapping for frames: huge pages where they are asked for and can be had, else normal ones, touched
//! on the core where it is made.

// Maps memory.
#![allow(unsafe_code)]

use std::{alloc::Layout, fmt, io, num::NonZeroUsize, ptr::NonNull};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// What a configuration asks of a region's memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HugePages {
    /// Huge pages where they can be had, else normal ones.
    #[default]
    Auto,
    /// Huge pages, or an error.
    Require,
    /// Normal pages.
    Off,
}

/// What a region's memory really is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// Reserved huge pages (`/proc/sys/vm/nr_hugepages`).
    Huge,
    /// Pages of the machine's normal size.
    Normal,
}

impl fmt::Display for Backing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Backing::Huge => "huge pages",
            Backing::Normal => "normal pages",
        })
    }
}

/// Why a region could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RegionError {
    /// `Require` was asked for and the kernel has too few huge pages.
    #[error(
        "no huge pages for {bytes} bytes of frame memory: reserve them (sysctl vm.nr_hugepages={pages}) or set hugepages = \"auto\""
    )]
    NoHugePages {
        /// The region's size.
        bytes: usize,
        /// How many pages of 2 MiB that is.
        pages: usize,
    },
    /// The kernel refused the memory.
    #[error("no memory for a region of {bytes} bytes: {source}; set fewer slots")]
    Memory {
        /// The region's size.
        bytes: usize,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// The size of the huge pages that memory is rounded to.
pub(super) const HUGE_PAGE: usize = 2 << 20;

/// A mapping of the kind that could be had.
pub(super) enum Memory {
    Huge(HugeMemory),
    Normal(NormalMemory),
}

impl Memory {
    /// Maps `bytes`, rounded up to whole huge pages where it gets them.
    pub(super) fn map(bytes: usize, pages: HugePages) -> Result<Self, RegionError> {
        if pages != HugePages::Off {
            let huge = bytes.next_multiple_of(HUGE_PAGE);
            if let Some(memory) = HugeMemory::new(huge) {
                return Ok(Self::Huge(memory));
            }
            if pages == HugePages::Require {
                return Err(RegionError::NoHugePages {
                    bytes: huge,
                    pages: huge / HUGE_PAGE,
                });
            }
        }
        NormalMemory::new(bytes)
            .map(Self::Normal)
            .map_err(|source| RegionError::Memory { bytes, source })
    }

    /// Its first byte.
    pub(super) fn base(&self) -> NonNull<u8> {
        match self {
            Self::Huge(memory) => memory.base,
            Self::Normal(memory) => memory.base,
        }
    }

    /// How many bytes it has.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Huge(memory) => memory.layout.size(),
            Self::Normal(memory) => memory.bytes,
        }
    }

    /// What it is.
    pub(super) fn backing(&self) -> Backing {
        match self {
            Self::Huge(_) => Backing::Huge,
            Self::Normal(_) => Backing::Normal,
        }
    }
}

/// Memory from hugepage-rs, which maps, reports failure as null and nothing more.
pub(super) struct HugeMemory {
    base: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the value owns its mapping alone; unmapping is allowed from any thread.
unsafe impl Send for HugeMemory {}

impl HugeMemory {
    fn new(bytes: usize) -> Option<Self> {
        // hugepage-rs panics where /proc/meminfo does not name a huge page size.
        if !std::fs::read_to_string("/proc/meminfo").is_ok_and(|m| m.contains("Hugepagesize:")) {
            return None;
        }
        let layout = Layout::from_size_align(bytes, 4096).ok()?;
        if bytes == 0 {
            return None;
        }
        // SAFETY: the size is not zero.
        let base = NonNull::new(unsafe { hugepage_rs::alloc(layout) })?;
        // A hugetlb mapping reserves its pages when it is made, so that touching them cannot fail;
        // touching them here keeps the page faults out of the loop.
        // SAFETY: just mapped with this length, and nobody else knows the address.
        unsafe { std::ptr::write_bytes(base.as_ptr(), 0, bytes) };
        Some(Self { base, layout })
    }
}

impl Drop for HugeMemory {
    fn drop(&mut self) {
        // SAFETY: allocated by hugepage-rs with this very layout, and dropped once.
        unsafe { hugepage_rs::dealloc(self.base.as_ptr(), self.layout) };
    }
}

pub(super) struct NormalMemory {
    base: NonNull<u8>,
    bytes: usize,
}

// SAFETY: the value owns its mapping alone; unmapping is allowed from any thread.
unsafe impl Send for NormalMemory {}

impl NormalMemory {
    fn new(bytes: usize) -> io::Result<Self> {
        let length = NonZeroUsize::new(bytes)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no slots"))?;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice disturbs nothing.
        let base = unsafe {
            mmap_anonymous(
                None,
                length,
                ProtFlags::PROT_READ | ProtFlags::PROT_WRITE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE,
            )
        }?;
        Ok(Self {
            base: base.cast(),
            bytes,
        })
    }
}

impl Drop for NormalMemory {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length, unmapped once.
        let unmapped = unsafe { munmap(self.base.cast(), self.bytes) };
        debug_assert_eq!(unmapped, Ok(()));
    }
}
