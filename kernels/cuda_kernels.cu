// The kernels of the CUDA device that are no matrix product; see reference.py for what they compute.
//
// Samples are rows: a, y, delta (m, n), C-ordered. Sums go in an order that depends on the shapes
// alone, so that the same input always gives the same bits.
#include "cuda_sigma.cuh"

// As much as a block was started with.
extern __shared__ real shared_memory[];

// out[i] = scale · rows[order[i]], a block a row of `packs` times PACK numbers. Four bytes at once
// where rows allow it: a warp then reads a whole line of memory.
template <class Number, int PACK>
struct alignas(sizeof(Number) * PACK) Pack {
    Number number[PACK];
};

template <class Number, int PACK>
void gather(const Number* rows, const int* order, int packs, real scale, real* out)
{
    const Pack<Number, PACK>* from =
        (const Pack<Number, PACK>*)rows + (long long)order[blockIdx.x] * packs;
    Pack<real, PACK>* to = (Pack<real, PACK>*)out + (long long)blockIdx.x * packs;
    for (int i = threadIdx.x; i < packs; i += blockDim.x) {
        const Pack<Number, PACK> pack = from[i];
        Pack<real, PACK> scaled;
        for (int k = 0; k < PACK; k++)
            scaled.number[k] = scale * real(pack.number[k]);
        to[i] = scaled;
    }
}

extern "C" __global__ void gather_bytes(
    const unsigned char* rows, const int* order, int packs, real scale, real* out)
{
    gather<unsigned char, 1>(rows, order, packs, scale, out);
}

extern "C" __global__ void gather_bytes_by_four(
    const unsigned char* rows, const int* order, int packs, real scale, real* out)
{
    gather<unsigned char, 4>(rows, order, packs, scale, out);
}

extern "C" __global__ void gather_reals(
    const real* rows, const int* order, int packs, real scale, real* out)
{
    gather<real, 1>(rows, order, packs, scale, out);
}

// The sum or the maximum of one number a thread, for all threads of a block of a power of two.
template <class Combine>
real over_block(real mine, Combine combine)
{
    shared_memory[threadIdx.x] = mine;
    for (int half = blockDim.x / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half)
            shared_memory[threadIdx.x] =
                combine(shared_memory[threadIdx.x], shared_memory[threadIdx.x + half]);
    }
    __syncthreads();
    const real all = shared_memory[0];
    __syncthreads();
    return all;
}

// a = σ(z + b), a block a row; out (m, n) holds z before and a after.
extern "C" __global__ void activate(const real* b, int n, int activation, real* out)
{
    real* row = out + (long long)blockIdx.x * n;
    for (int j = threadIdx.x; j < n; j += blockDim.x)
        row[j] = sigma(activation, row[j] + b[j]);
    if (activation != SOFTMAX)
        return;

    // a_j = e^{z_j - max} / Σ_k e^{z_k - max}
    __syncthreads();
    real largest = row[threadIdx.x % n];
    for (int j = threadIdx.x; j < n; j += blockDim.x)
        largest = row[j] > largest ? row[j] : largest;
    largest = over_block(largest, [](real x, real y) { return x > y ? x : y; });
    real sum = 0;
    for (int j = threadIdx.x; j < n; j += blockDim.x)
        sum += row[j] = exponential(row[j] - largest);
    sum = over_block(sum, [](real x, real y) { return x + y; });
    for (int j = threadIdx.x; j < n; j += blockDim.x)
        row[j] = quotient(row[j], sum);
}

// out ← out ⊙ σ′(z), by a = σ(z); count numbers
extern "C" __global__ void hadamard(const real* a, int activation, long long count, real* out)
{
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        out[i] *= sigma_prime(activation, a[i]);
}

// BP1: out = ∇_a C ⊙ σ′(z); count numbers
extern "C" __global__ void output_delta(
    const real* a, const real* y, int activation, real factor, long long count, real* out)
{
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        out[i] = output_delta_of(activation, factor, a[i], y[i]);
}

// out_i ← w_i · out_i, rows of n numbers, a weight each; count numbers
extern "C" __global__ void scale_rows(const real* weights, int n, long long count, real* out)
{
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        out[i] = weights[i / n] * out[i];
}

// Visits an (m, n) matrix by columns, a block 32 of them: threads (column, group), and group g takes
// the rows g, g + groups, ... `visit(i, j)` gives the number that row i adds to the sum of column j;
// `finish(j, sum)` gets the sums.
template <class Visit, class Finish>
void sum_columns(int m, int n, Visit visit, Finish finish)
{
    const int j = blockIdx.x * 32 + threadIdx.x;
    real sum = 0;
    if (j < n)
        for (int i = threadIdx.y; i < m; i += blockDim.y)
            sum += visit(i, j);
    shared_memory[threadIdx.y * 32 + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && j < n) {
        for (int group = 1; group < blockDim.y; group++)
            sum += shared_memory[group * 32 + threadIdx.x];
        finish(j, sum);
    }
}

// out ← alpha · Σ_i delta_i + beta · out; beta = 0 overwrites any NaN
extern "C" __global__ void sum_rows(
    const real* delta, int m, int n, real alpha, real beta, real* out)
{
    sum_columns(
        m, n, [=](int i, int j) { return delta[(long long)i * n + j]; },
        [=](int j, real sum) { out[j] = alpha * sum + (beta ? beta * out[j] : 0); });
}

// The same two once more with BP3 at their end, b ← b - η/m Σ_i δ_i, for a step that takes many
// mini-batches without the host: `minus_rate` points to -η/m.

// BP2's Hadamard product and BP3: delta ← delta ⊙ σ′(z), by a = σ(z)
extern "C" __global__ void hidden_delta(
    const real* a, int activation, int m, int n, const real* minus_rate, real* delta, real* b)
{
    sum_columns(
        m, n,
        [=](int i, int j) {
            const long long k = (long long)i * n + j;
            return delta[k] *= sigma_prime(activation, a[k]);
        },
        [=](int j, real sum) { b[j] += *minus_rate * sum; });
}

// BP1 and BP3, with the targets where they lie: y_i = targets[order[i]]
extern "C" __global__ void last_delta(const real* a, const unsigned char* targets, const int* order,
    int activation, real factor, int m, int n, const real* minus_rate, real* delta, real* b)
{
    sum_columns(
        m, n,
        [=](int i, int j) {
            const long long k = (long long)i * n + j;
            const real y = targets[(long long)order[i] * n + j];
            return delta[k] = output_delta_of(activation, factor, a[k], y);
        },
        [=](int j, real sum) { b[j] += *minus_rate * sum; });
}

// v ← μv - s, w ← shrink · w + v, by Nesterov + μv - s, with s = η (∂C/∂w + λ₁ sgn w + λ₂ w); count
// numbers
extern "C" __global__ void momentum(const real* gradient, real rate, real mu, int nesterov, real l1,
    real l2, real shrink, long long count, real* velocity, real* w)
{
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all) {
        const real step = rate * (gradient[i] + l1 * sign(w[i]) + l2 * w[i]);
        move(step, mu, nesterov, shrink, velocity[i], w[i]);
    }
}

// Once more for a step that takes many mini-batches without the host: η lies on the GPU, where
// minus_rated has -η ∂C/∂w. That is 0 afterwards, to be added to.
extern "C" __global__ void momentum_of_sum(const real* rate, real mu, int nesterov, real l1, real l2,
    const real* shrink, long long count, real* minus_rated, real* velocity, real* w)
{
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all) {
        const real step = *rate * (l1 * sign(w[i]) + l2 * w[i]) - minus_rated[i];
        minus_rated[i] = 0;
        move(step, mu, nesterov, *shrink, velocity[i], w[i]);
    }
}

// g = ∂C/∂w + λ₁ sgn w + λ₂ w, m ← β₁m + (1 - β₁)g, s ← β₂s + (1 - β₂)g²,
// w ← shrink · w - η m̂ / (√ŝ + ε), with m̂ = of_mean · m and ŝ = of_square · s. Rests are 1 - β,
// which in short precision would lose what counts. count numbers
extern "C" __global__ void adam(const real* gradient, real rate, real beta1, real rest1, real beta2,
    real rest2, real epsilon, real of_mean, real of_square, real l1, real l2, real shrink,
    long long count, real* mean, real* square, real* w)
{
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all) {
        const real g = gradient[i] + l1 * sign(w[i]) + l2 * w[i];
        const real m = mean[i] = beta1 * mean[i] + rest1 * g;
        const real s = square[i] = beta2 * square[i] + rest2 * g * g;
        w[i] = shrink * w[i] - rate * (of_mean * m) / (root(of_square * s) + epsilon);
    }
}

// √(x² + y²) of lengths, whose squares may be out of range
inline real hypotenuse(real x, real y)
{
    const bool by_x = x > y;
    const real longer = by_x ? x : y;
    const real part = longer == 0 ? real(0) : (by_x ? y : x) / longer;
    return longer * root(1 + part * part);
}

// One number a block: the length of every gridDim.x-th piece of blockDim.x numbers.
extern "C" __global__ void lengths(const real* numbers, long long count, real* of_blocks)
{
    real length = 0;
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        length = hypotenuse(length, numbers[i] < 0 ? -numbers[i] : numbers[i]);
    length = over_block(length, hypotenuse);
    if (threadIdx.x == 0)
        of_blocks[blockIdx.x] = length;
}

// g ← g · min(1, most / ‖g‖), by the lengths of so many parts, no more than a block has threads;
// count numbers
extern "C" __global__ void clip(
    const real* lengths, int many, real most, long long count, real* gradient)
{
    const real mine = threadIdx.x < many ? lengths[threadIdx.x] : real(0);
    const real length = over_block(mine, hypotenuse);
    if (!(length > most))
        return;
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += all)
        gradient[i] = gradient[i] / length * most;
}

// Inverted dropout: out_k = 0 where draw_k < rate, else scale · a_k, with the reference's draws, of
// whose upper 32 bits the threshold is the rate. count numbers; out may be a
extern "C" __global__ void drop(const real* a, unsigned long long key, unsigned long long first,
    unsigned long long threshold, real scale, long long count, real* out)
{
    const unsigned long long gamma = 0x9E3779B97F4A7C15ull;
    const long long all = (long long)gridDim.x * blockDim.x;
    for (long long k = (long long)blockIdx.x * blockDim.x + threadIdx.x; k < count; k += all) {
        unsigned long long z = key + (first + k + 1) * gamma;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        z ^= z >> 31;
        out[k] = z >> 32 < threshold ? real(0) : scale * a[k];
    }
}
