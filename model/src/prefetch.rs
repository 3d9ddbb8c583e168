//! A hint to the processor, and the only thing in the vocabulary that is no data: collector and
//! detector both walk tables of a million hosts, where waiting for memory costs more than the sums.
#![expect(unsafe_code, reason = "the processor's hint has no safe wrapper")]

/// Has the first and the last cache line of `at` fetched while the caller goes on. Reading it instead
/// would hold up what comes after once the processor's window is full. Does nothing where the compiler
/// offers no such hint.
#[inline]
pub fn prefetch<T>(at: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        let first: *const i8 = std::ptr::from_ref(at).cast();
        let last = first.wrapping_add(size_of::<T>().saturating_sub(1));
        // SAFETY: SSE is part of every x86_64, and a prefetch neither faults nor changes anything.
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(first);
            // A number stands in one line.
            if size_of::<T>() > 8 {
                _mm_prefetch::<_MM_HINT_T0>(last);
            }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
