//! Tiles of Intel's AMX: eight of 16 rows of 64 bytes, which a thread configures before it multiplies by them.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(unsafe_code, reason = "instructions that have no safe name")]

use std::{
    arch::{asm, x86_64::__cpuid_count},
    sync::OnceLock,
};

/// Whether the processor multiplies tiles of bfloat16, and the kernel lets this process use them.
pub(super) fn multiplies_bfloat16() -> bool {
    features() & (1 << 22) != 0
}

/// The same for tiles of bytes.
pub(super) fn multiplies_bytes() -> bool {
    features() & (1 << 25) != 0
}

/// What leaf 7 says of the processor, asked once; nothing where there are no tiles, bit 24, or they may not be used.
fn features() -> u32 {
    static FEATURES: OnceLock<u32> = OnceLock::new();
    *FEATURES.get_or_init(|| {
        let features = __cpuid_count(7, 0).edx;
        if features & (1 << 24) != 0 && ask() {
            features
        } else {
            0
        }
    })
}

/// Asks the kernel for the tiles' state, which is too large to be kept for those who never use it.
fn ask() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const REQUEST_PERMISSION: u64 = 0x1023;
    const TILE_DATA: u64 = 18;
    let mut result = ARCH_PRCTL;
    // SAFETY: a system call that reads and writes no memory of ours; what the kernel changes is named.
    unsafe {
        asm!("syscall", inlateout("rax") result, in("rdi") REQUEST_PERMISSION, in("rsi") TILE_DATA,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result == 0
}

/// Eight tiles of 16 rows of 64 bytes: the format of LDTILECFG.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    unused: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Before the thread's first product.
pub(super) fn configure() {
    let mut configuration = Configuration {
        palette: 1,
        start_row: 0,
        unused: [0; 14],
        row_bytes: [0; 16],
        rows: [0; 16],
    };
    configuration.row_bytes[..8].fill(64);
    configuration.rows[..8].fill(16);
    // SAFETY: the processor has tiles (`features`); 64 bytes are read.
    unsafe { asm!("ldtilecfg [{0}]", in(reg) &raw const configuration, options(nostack, readonly)) }
}

/// After its last: tiles in use slow every switch between threads.
pub(super) fn release() {
    // SAFETY: the processor has tiles.
    unsafe { asm!("tilerelease", options(nostack, nomem)) }
}
