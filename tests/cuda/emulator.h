// CUDA as a kernel's source sees it, for a compiler of host C++; what is behind it is emulator.cpp.
// No header of the library: a kernel is compiled in a fraction of the time that those take.
#pragma once

#define __global__
#define __shared__
#define __launch_bounds__(...)

extern "C" {
double exp(double) noexcept;
float expf(float) noexcept;
double tanh(double) noexcept;
float tanhf(float) noexcept;
double sqrt(double) noexcept;
float sqrtf(float) noexcept;
}

struct Index {
    unsigned x, y, z;
};

namespace emulator {

// Who runs now.
struct Place {
    Index thread, block, block_size, grid_size;
};
extern Place now;

void wait_for_block();
void exchange(void* number, int bytes, unsigned mask, int lane_mask);

// Run a kernel; see emulator.cpp.
int run(void (*body)(void**), const unsigned* grid, const unsigned* block, int shared_bytes,
    void** arguments, int order, void* shared_memory);
constexpr int SHARED_MEMORY = 1 << 19;

// Call a kernel with its arguments given by their addresses, as the driver does. What is read here is
// no memory of the GPU.
template <int...>
struct Numbers {
};
template <int n, int... above>
struct Below : Below<n - 1, n - 1, above...> {
};
template <int... all>
struct Below<0, all...> {
    typedef Numbers<all...> numbers;
};

template <class... A, int... i>
__attribute__((no_sanitize("thread"))) void unpack(void (*kernel)(A...), void** arguments, Numbers<i...>)
{
    kernel(*(A*)arguments[i]...);
}

template <class... A>
__attribute__((no_sanitize("thread"))) void unpack(void (*kernel)(A...), void** arguments)
{
    unpack(kernel, arguments, typename Below<sizeof...(A)>::numbers());
}

}  // namespace emulator

#define threadIdx (emulator::now.thread)
#define blockIdx (emulator::now.block)
#define blockDim (emulator::now.block_size)
#define gridDim (emulator::now.grid_size)

inline void __syncthreads() { emulator::wait_for_block(); }

template <class T>
T __shfl_xor_sync(unsigned mask, T mine, int lane_mask)
{
    emulator::exchange(&mine, sizeof mine, mask, lane_mask);
    return mine;
}

inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __uint_as_float(unsigned bits)
{
    float x;
    __builtin_memcpy(&x, &bits, sizeof x);
    return x;
}

// At the end of a program that has a kernel's source in it: the memory that its blocks share, and a
// function by which each kernel is called.
#define MEMORY(Type)                                                                                \
    alignas(16) Type shared_memory[emulator::SHARED_MEMORY / sizeof(Type)];

#define KERNEL(name)                                                                                \
    extern "C" int run_##name(const unsigned* grid, const unsigned* block, int shared_bytes,        \
        void** arguments, int order)                                                                \
    {                                                                                               \
        const auto body = [](void** given) { emulator::unpack(name, given); };                      \
        return emulator::run(body, grid, block, shared_bytes, arguments, order, shared_memory);     \
    }
