// CUDA kernels as host C++: a block's threads are fibers that run one at a time, each from one
// barrier to its next, in an order to be chosen. Whatever the order, a correct kernel gives the same
// bits. What a thread may not do is an error: to miss a barrier that others wait at, to leave out of
// a shuffle's mask a lane that takes part, to read shared memory that no one wrote (it is NaN), to
// write beyond it.
//
// Where the kernel is compiled with -fsanitize=thread, it calls a function below before it reads or
// writes memory, and more is an error, whether or not it shows in the results: that two threads of a
// block touch the same memory with no barrier in between, and one of them writes; that two blocks
// do; that memory is touched which the kernel was not given; that numbers are read at once from where
// such a group does not begin.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <unordered_map>
#include <vector>

#include "emulator.h"  // which defines names that the library declares

namespace emulator {

constexpr std::size_t STACK = 1 << 16;

Place now;

enum State { READY, AT_BLOCK, AT_WARP, DONE };
enum Failure {
    NONE,
    DIVERGENT_BARRIER,
    BEYOND_SHARED_MEMORY,
    WRONG_MASK,
    RACE,
    FOREIGN_MEMORY,
    MISALIGNED
};

struct Fiber {
    std::unique_ptr<char[]> stack;
    bool begun;
    jmp_buf where;
    State state;
    Index thread;
    unsigned mask;  // of the shuffle that it waits at
    char exchange[2][8];  // what the last shuffles of this thread gave away
    int shuffles;
};

static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static int current;
static void (*body)(void**);
static void** arguments;
static Failure failure;
static char said[200];

static void leave()
{
    if (!_setjmp(fibers[current].where))
        _longjmp(scheduler, 1);
}

static void fail(Failure what)
{
    if (!failure)
        failure = what;
    leave();
}

static void begin()
{
    body(arguments);
    fibers[current].state = DONE;
    leave();
}

static void resume(int i)
{
    Fiber& fiber = fibers[current = i];
    now.thread = fiber.thread;
    if (_setjmp(scheduler))
        return;
    if (fiber.begun)
        _longjmp(fiber.where, 1);
    fiber.begun = true;
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = STACK;
    makecontext(&context, begin, 0);
    setcontext(&context);
}

static void wait(State where)
{
    fibers[current].state = where;
    leave();
}

// ---- What is touched ---------------------------------------------------------------------------

// A word of memory: who touched it last, and when, counted in barriers.
struct Word {
    long written = -1, read = -1;
    int writer, reader;
    unsigned writing_block, reading_block;
    bool many;  // readers since the last barrier
};

struct Range {
    std::size_t begin, end;
};

static std::unordered_map<std::size_t, Word> words;
static std::vector<Range> given;  // sorted
static long barriers, launch_began;
static std::size_t shared_begin;

static void raced(const char* what, std::size_t at)
{
    const bool shared = at - shared_begin < SHARED_MEMORY;
    std::snprintf(said, sizeof said, "thread %d %s %s memory at byte %zu", current, what,
        shared ? "shared" : "the GPU's", shared ? at - shared_begin : at);
    fail(RACE);
}

static void touch(void* address, std::size_t size, bool writes)
{
    const std::size_t at = (std::size_t)address;
    if (at - (std::size_t)fibers[current].stack.get() < STACK || at - (std::size_t)&now < sizeof now)
        return;
    const bool shared = at - shared_begin < SHARED_MEMORY;
    if (!shared && !given.empty()) {
        const auto after = std::upper_bound(given.begin(), given.end(), at,
            [](std::size_t at, const Range& range) { return at < range.begin; });
        if (after == given.begin() || at + size > after[-1].end) {
            std::snprintf(said, sizeof said, "thread %d %s %zu bytes at %p", current,
                writes ? "writes" : "reads", size, address);
            return fail(FOREIGN_MEMORY);
        }
    }
    const auto elsewhere = [=](long when, unsigned block) {
        return !shared && when >= launch_began && block != now.block.x;
    };
    for (std::size_t place = at / 4; place <= (at + size - 1) / 4; place++) {
        Word& word = words[place];
        if ((word.written == barriers && word.writer != current)
            || elsewhere(word.written, word.writing_block))
            return raced(writes ? "writes" : "reads", at);
        if (writes) {
            if ((word.read == barriers && (word.many || word.reader != current))
                || elsewhere(word.read, word.reading_block))
                return raced("writes", at);
            word.written = barriers;
            word.writer = current;
            word.writing_block = now.block.x;
        } else {
            word.many = word.read == barriers && (word.many || word.reader != current);
            word.read = barriers;
            word.reader = current;
            word.reading_block = now.block.x;
        }
    }
}

// ---- A block -----------------------------------------------------------------------------------

// Let all fibers go if they stand at the block's barrier.
static bool release_block(int threads)
{
    for (int i = 0; i < threads; i++)
        if (fibers[i].state != AT_BLOCK)
            return false;
    for (int i = 0; i < threads; i++)
        fibers[i].state = READY;
    barriers++;
    return true;
}

// Let those lanes of a warp go that stand at a shuffle with all lanes of its mask.
static bool release_warp(int first, int count)
{
    bool any = false;
    for (int i = first; i < first + count; i++) {
        if (fibers[i].state != AT_WARP)
            continue;
        const unsigned mask = fibers[i].mask;
        unsigned there = 0;
        for (int lane = 0; lane < count; lane++) {
            const Fiber& other = fibers[first + lane];
            there |= unsigned(other.state == AT_WARP && other.mask == mask) << lane;
        }
        if (there != mask)
            continue;
        for (int lane = 0; lane < count; lane++)
            if (mask >> lane & 1)
                fibers[first + lane].state = READY;
        any = true;
    }
    return any;
}

static bool done(const Fiber& fiber) { return fiber.state == DONE; }

// order: 0 ascending, 1 descending, else shuffled anew each time, by this seed
static Failure run_block(int order)
{
    const Index size = now.block_size;
    const int threads = size.x * size.y * size.z;
    std::mt19937 random(order);
    if (threads > (int)fibers.size())
        fibers.resize(threads);
    for (int i = 0; i < threads; i++) {
        Fiber& fiber = fibers[i];
        if (!fiber.stack)
            fiber.stack.reset(new char[STACK]);
        fiber.state = READY;
        fiber.begun = false;
        fiber.shuffles = 0;
        fiber.thread = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    }
    failure = NONE;
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
                any |= release_warp(warp, std::min(32, threads - warp));
            if (!any && !release_block(threads))
                return DIVERGENT_BARRIER;
            continue;
        }
        if (order == 1)
            std::reverse(ready.begin(), ready.end());
        else if (order > 1)
            std::shuffle(ready.begin(), ready.end(), random);
        for (int i : ready) {
            resume(i);
            if (failure)
                return failure;
        }
    }
}

// ---- What a kernel calls -----------------------------------------------------------------------

void wait_for_block() { wait(AT_BLOCK); }

void exchange(void* number, int bytes, unsigned mask, int lane_mask)
{
    Fiber& mine = fibers[current];
    const int lane = current % 32;
    const int slot = mine.shuffles++ % 2;
    if (!(mask >> lane & 1) || !(mask >> (lane ^ lane_mask) & 1))
        fail(WRONG_MASK);
    mine.mask = mask;
    std::memcpy(mine.exchange[slot], number, bytes);
    wait(AT_WARP);
    std::memcpy(number, fibers[current ^ lane_mask].exchange[slot], bytes);
}

int run(void (*kernel)(void**), const unsigned* grid, const unsigned* block, int shared_bytes,
    void** kernel_arguments, int order, void* shared_memory)
{
    // Between launches all of the shared memory is full of ones, as it is where no one wrote.
    char* const memory = (char*)shared_memory;
    static std::vector<char*> prepared;
    if (std::find(prepared.begin(), prepared.end(), memory) == prepared.end()) {
        std::memset(memory, 0xff, SHARED_MEMORY);
        prepared.push_back(memory);
    }
    body = kernel;
    arguments = kernel_arguments;
    shared_begin = (std::size_t)memory;
    now.grid_size = {grid[0], grid[1], grid[2]};
    now.block_size = {block[0], block[1], block[2]};
    launch_began = ++barriers;
    Failure found = NONE;
    for (unsigned z = 0; z < grid[2] && !found; z++)
        for (unsigned y = 0; y < grid[1] && !found; y++)
            for (unsigned x = 0; x < grid[0] && !found; x++) {
                now.block = {x, y, z};
                barriers++;
                found = run_block(order);
                std::memset(memory, 0xff, shared_bytes);
            }
    const char* const beyond = memory + shared_bytes;
    const bool clean = shared_bytes == SHARED_MEMORY
        || (*beyond == (char)0xff
            && !std::memcmp(beyond, beyond + 1, SHARED_MEMORY - shared_bytes - 1));
    if (!clean) {
        std::memset(memory, 0xff, SHARED_MEMORY);
        return found ? found : BEYOND_SHARED_MEMORY;
    }
    return found;
}

}  // namespace emulator

// The memory that kernels may touch, as pairs of its begin and its end, sorted.
extern "C" void give(int count, const std::size_t* ranges)
{
    emulator::given.resize(count);
    std::memcpy(emulator::given.data(), ranges, count * sizeof(emulator::Range));
}

extern "C" const char* what_was_said() { return emulator::said; }

// What the compiler calls under -fsanitize=thread.
#define TOUCHED(bytes)                                                                              \
    void __tsan_read##bytes(void* at) { emulator::touch(at, bytes, false); }                        \
    void __tsan_write##bytes(void* at) { emulator::touch(at, bytes, true); }                        \
    void __tsan_unaligned_read##bytes(void* at) { emulator::touch(at, bytes, false); }              \
    void __tsan_unaligned_write##bytes(void* at) { emulator::touch(at, bytes, true); }

extern "C" {
TOUCHED(1)
TOUCHED(2)
TOUCHED(4)
TOUCHED(8)
TOUCHED(16)
void __tsan_read_range(void* at, std::size_t size) { emulator::touch(at, size, false); }
void __tsan_write_range(void* at, std::size_t size) { emulator::touch(at, size, true); }
void __tsan_init() { }
void __tsan_func_entry(void*) { }
void __tsan_func_exit() { }

// And under -fsanitize=alignment: a GPU reads four numbers at once only from where they may begin.
void __ubsan_handle_type_mismatch_v1(void*, void*) { emulator::fail(emulator::MISALIGNED); }
}
