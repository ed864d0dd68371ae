//! For modules that a sanitizer instruments: what they call, and which memory they must not touch.
//!
//! Module code and this process are compiled with the same instrumentation; the module's calls reach the runtime that
//! is linked into the process. Without the features `address` and `thread` nothing of this is there.

#[cfg(not(any(feature = "address", feature = "thread")))]
pub(crate) const SYMBOLS: &[crate::symbols::Function] = &[];

/// Declares functions of a runtime by name only (nobody here calls them) and lists them.
#[cfg(any(feature = "address", feature = "thread"))]
macro_rules! runtime {
    ($($name:ident),* $(,)?) => {
        unsafe extern "C" { $(fn $name();)* }
        pub(crate) const SYMBOLS: &[crate::symbols::Function] = &[$((stringify!($name), $name as *const ())),*];
    };
}

#[cfg(feature = "address")]
runtime![
    __asan_handle_no_return,
    __asan_init,
    __asan_memcpy,
    __asan_memmove,
    __asan_memset,
    __asan_report_load1,
    __asan_report_load2,
    __asan_report_load4,
    __asan_report_load8,
    __asan_report_load16,
    __asan_report_load_n,
    __asan_report_store1,
    __asan_report_store2,
    __asan_report_store4,
    __asan_report_store8,
    __asan_report_store16,
    __asan_report_store_n,
    __asan_set_shadow_00,
    __asan_set_shadow_f1,
    __asan_set_shadow_f2,
    __asan_set_shadow_f3,
    __asan_set_shadow_f5,
    __asan_set_shadow_f8,
    __asan_version_mismatch_check_v8,
];

#[cfg(feature = "thread")]
runtime![
    __tsan_init,
    __tsan_func_entry,
    __tsan_func_exit,
    __tsan_read1,
    __tsan_read2,
    __tsan_read4,
    __tsan_read8,
    __tsan_read16,
    __tsan_write1,
    __tsan_write2,
    __tsan_write4,
    __tsan_write8,
    __tsan_write16,
    __tsan_unaligned_read2,
    __tsan_unaligned_read4,
    __tsan_unaligned_read8,
    __tsan_unaligned_read16,
    __tsan_unaligned_write2,
    __tsan_unaligned_write4,
    __tsan_unaligned_write8,
    __tsan_unaligned_write16,
    __tsan_vptr_read,
    __tsan_vptr_update,
    __tsan_memcpy,
    __tsan_memmove,
    __tsan_memset,
    __tsan_atomic_thread_fence,
    __tsan_atomic_signal_fence,
    __tsan_atomic8_load,
    __tsan_atomic16_load,
    __tsan_atomic32_load,
    __tsan_atomic64_load,
    __tsan_atomic8_store,
    __tsan_atomic16_store,
    __tsan_atomic32_store,
    __tsan_atomic64_store,
    __tsan_atomic8_exchange,
    __tsan_atomic32_exchange,
    __tsan_atomic64_exchange,
    __tsan_atomic32_fetch_add,
    __tsan_atomic64_fetch_add,
    __tsan_atomic32_fetch_sub,
    __tsan_atomic64_fetch_sub,
    __tsan_atomic8_fetch_and,
    __tsan_atomic32_fetch_and,
    __tsan_atomic64_fetch_and,
    __tsan_atomic8_fetch_or,
    __tsan_atomic32_fetch_or,
    __tsan_atomic64_fetch_or,
    __tsan_atomic8_compare_exchange_val,
    __tsan_atomic32_compare_exchange_val,
    __tsan_atomic64_compare_exchange_val,
];

#[cfg(feature = "thread")]
mod volatile {
    //! Volatile accesses of module code are how the kernel shares a word without a lock: they race by intent.

    macro_rules! ignored {
        ($($name:ident),* $(,)?) => {
            $(extern "C" fn $name(_at: usize) {})*
            pub(super) const SYMBOLS: &[crate::symbols::Function] = crate::symbols![$($name),*];
        };
    }

    ignored![__tsan_volatile_read4, __tsan_volatile_read8, __tsan_volatile_write4, __tsan_volatile_write8];
}

#[cfg(feature = "thread")]
pub(crate) const VOLATILE: &[crate::symbols::Function] = volatile::SYMBOLS;
#[cfg(not(feature = "thread"))]
pub(crate) const VOLATILE: &[crate::symbols::Function] = &[];

/// Nobody may touch this memory from now on: red zones, what is freed.
pub(crate) fn guard(at: usize, length: usize) {
    #[cfg(feature = "address")]
    {
        unsafe extern "C" {
            fn __asan_poison_memory_region(at: usize, length: usize);
        }
        // SAFETY: marks the memory and does not touch it.
        unsafe { __asan_poison_memory_region(at, length) }
    }
    let _ = (at, length);
}

/// This memory may be touched again.
pub(crate) fn unguard(at: usize, length: usize) {
    #[cfg(feature = "address")]
    {
        unsafe extern "C" {
            fn __asan_unpoison_memory_region(at: usize, length: usize);
        }
        // SAFETY: marks the memory and does not touch it.
        unsafe { __asan_unpoison_memory_region(at, length) }
    }
    let _ = (at, length);
}
