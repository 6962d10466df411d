// CUDA kernels as host C++: a block's threads are fibers that run one at a time, each from one
// barrier to its next, in an order to be chosen. Whatever the order, a correct kernel gives the same
// bits. What a thread may not do is an error: to miss a barrier that others wait at, to read shared
// memory that no one wrote (it is NaN), to write beyond it.
#pragma once
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#define __global__
#define __shared__
#define __launch_bounds__(...)

struct Index {
    unsigned x, y, z;
};

namespace emulator {

constexpr std::size_t STACK = 1 << 16;

enum State { READY, AT_BLOCK, AT_WARP, DONE };
enum Failure { NONE, DIVERGENT_BARRIER, BEYOND_SHARED_MEMORY };

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack;
    State state = READY;
    Index thread;
    char exchange[2][8];  // what the last shuffles of this thread gave away
    int shuffles = 0;
};

inline std::vector<Fiber> fibers;
inline ucontext_t scheduler;
inline int current;
inline Index block, block_size, grid_size;
inline void (*body)(void**);
inline void** arguments;

inline void enter()
{
    body(arguments);
    fibers[current].state = DONE;
    swapcontext(&fibers[current].context, &scheduler);
}

inline void wait(State where)
{
    fibers[current].state = where;
    swapcontext(&fibers[current].context, &scheduler);
}

// If all of `count` fibers from the first one on stand at the barrier, let them go.
inline bool release(int first, int count, State barrier)
{
    for (int i = first; i < first + count; i++)
        if (fibers[i].state != barrier)
            return false;
    for (int i = first; i < first + count; i++)
        fibers[i].state = READY;
    return true;
}

inline bool done(const Fiber& fiber) { return fiber.state == DONE; }

// order: 0 ascending, 1 descending, else shuffled anew each time, by this seed
inline Failure run_block(int order)
{
    const int threads = block_size.x * block_size.y * block_size.z;
    std::mt19937 random(order);
    fibers.resize(std::max<std::size_t>(threads, fibers.size()));
    for (int i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        fiber.state = READY;
        fiber.shuffles = 0;
        fiber.thread = {i % block_size.x, i / block_size.x % block_size.y,
            i / (block_size.x * block_size.y)};
        if (!fiber.stack)
            fiber.stack.reset(new char[STACK]);
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        makecontext(&fiber.context, enter, 0);
    }
    std::vector<int> ready;
    for (;;) {
        ready.clear();
        for (int i = 0; i < threads; i++)
            if (fibers[i].state == READY)
                ready.push_back(i);
        if (ready.empty()) {
            if (std::all_of(fibers.begin(), fibers.begin() + threads, done))
                return NONE;
            bool any = false;
            for (int warp = 0; warp < threads; warp += 32)
                any |= release(warp, std::min(32, threads - warp), AT_WARP);
            if (!any && !release(0, threads, AT_BLOCK))
                return DIVERGENT_BARRIER;
            continue;
        }
        if (order == 1)
            std::reverse(ready.begin(), ready.end());
        else if (order > 1)
            std::shuffle(ready.begin(), ready.end(), random);
        for (int i : ready) {
            current = i;
            swapcontext(&scheduler, &fibers[i].context);
        }
    }
}

// Call a kernel with its arguments given by their addresses, as the driver does.
template <class... A, std::size_t... I>
void unpack(void (*kernel)(A...), void** args, std::index_sequence<I...>)
{
    kernel(*(A*)args[I]...);
}

template <class... A>
void unpack(void (*kernel)(A...), void** args)
{
    unpack(kernel, args, std::index_sequence_for<A...>());
}

template <class T>
T exchanged(T mine, int lane_mask)
{
    const int me = current;
    const int slot = fibers[me].shuffles++ % 2;
    std::memcpy(fibers[me].exchange[slot], &mine, sizeof mine);
    wait(AT_WARP);
    T theirs;
    std::memcpy(&theirs, fibers[me ^ lane_mask].exchange[slot], sizeof theirs);
    return theirs;
}

}  // namespace emulator

#define threadIdx (emulator::fibers[emulator::current].thread)
#define blockIdx (emulator::block)
#define blockDim (emulator::block_size)
#define gridDim (emulator::grid_size)

inline void __syncthreads() { emulator::wait(emulator::AT_BLOCK); }

template <class T>
T __shfl_xor_sync(unsigned, T mine, int lane_mask)
{
    return emulator::exchanged(mine, lane_mask);
}

inline float __expf(float x) { return expf(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __uint_as_float(unsigned bits)
{
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}

// At the end of the file that includes a kernel's source: the memory that its blocks share, and a
// function by which each kernel is called.
#define SHARED_MEMORY(Type)                                                                         \
    alignas(16) Type shared_memory[(1 << 18) / sizeof(Type)];                                       \
    static int run(void (*body)(void**), const unsigned* grid, const unsigned* block,               \
        int shared_bytes, void** arguments, int order)                                              \
    {                                                                                               \
        char* memory = (char*)shared_memory;                                                        \
        emulator::body = body;                                                                      \
        emulator::arguments = arguments;                                                            \
        emulator::grid_size = {grid[0], grid[1], grid[2]};                                          \
        emulator::block_size = {block[0], block[1], block[2]};                                      \
        for (unsigned z = 0; z < grid[2]; z++)                                                      \
            for (unsigned y = 0; y < grid[1]; y++)                                                  \
                for (unsigned x = 0; x < grid[0]; x++) {                                            \
                    emulator::block = {x, y, z};                                                    \
                    std::memset(memory, 0xff, sizeof shared_memory);                                \
                    if (auto failure = emulator::run_block(order))                                  \
                        return failure;                                                             \
                    for (std::size_t i = shared_bytes; i < sizeof shared_memory; i++)               \
                        if (memory[i] != (char)0xff)                                                \
                            return emulator::BEYOND_SHARED_MEMORY;                                  \
                }                                                                                   \
        return emulator::NONE;                                                                      \
    }

#define KERNEL(name)                                                                                \
    extern "C" int run_##name(const unsigned* grid, const unsigned* block, int shared_bytes,        \
        void** arguments, int order)                                                                \
    {                                                                                               \
        return run([](void** args) { emulator::unpack(name, args); }, grid, block, shared_bytes,    \
            arguments, order);                                                                      \
    }
