// Mini-batch gradient descent on a run of mini-batches, by one block, in one launch: backprop.py once
// more, with the weights where the arithmetic is.
//
// A small network on small mini-batches is a chain of tiny products, and what a launch costs, or a
// trip to memory, is more than any of them. So one block stays for the whole run. The weights of the
// first layer, nearly all there are, live in its registers; those of the other layers, the
// activations and the deltas in its shared memory. A mini-batch of m samples goes so:
//
//     partial sums of W¹x, a slice of the inputs each                       all threads
//     ---- barrier
//     z¹ = b¹ + the partial sums, a¹ = σ(z¹)                                a thread a number
//     ---- barrier
//     aˡ = σ(Wˡ aˡ⁻¹ + bˡ), for the last layer δᴸ (BP1)                     a thread a number
//     ---- barrier, for each layer
//     δˡ⁻¹ = (Wˡ)ᵀ δˡ ⊙ σ′, down to δ¹ (BP2)                                a thread a number
//     ---- barrier, for each layer
//     W ← shrink · W - η/m Σ δ aᵀ, b ← b - η/m Σ δ (BP3, BP4)               all threads
//
// and with no barrier on to the partial sums of the next. While it goes on, the samples of the
// mini-batch after are on their way from memory. With momentum or L1 the last line is what
// reference.py's momentum() says.
//
// Who owns which of the first layer's weights. A thread has a tile: UNITS neighbouring units times
// QUADS runs of four neighbouring inputs and SINGLES inputs more. The lanes of a warp are UNIT_LANES
// tiles wide and 32 / UNIT_LANES slices deep, the warps of the block UNIT_WARPS wide and SLICE_WARPS
// deep. So a number of x, once read from shared memory, is multiplied by UNITS weights, and is the
// same for UNIT_LANES lanes. SLICES = SLICE_WARPS · 32 / UNIT_LANES; slice s has the inputs
//
//     4 (QUADS s + q) + 0..3     for q < QUADS
//     4 QUADS SLICES + r SLICES + s     for r < SINGLES
//
// of which those from the network's inputs on do not exist: x is 0 there, and the weights stay 0.
// With momentum a thread has the velocities of its weights, too: in its registers as many as have
// room there, those of its first SHARED_QUADS quads in a piece of shared memory that is its own. No
// one else looks at them, so that they need no barriers.
//
// What is compiled for each network and mini-batch, besides the definitions of cuda_sigma.cuh:
//   SIZES         units of every layer, the input first, as in 784,30,10
//   ACTIVATIONS   of every layer but the input, as numbers of enum Activation
//   MATCHED       whether the cost cancels σ′ of the last layer, else
//   FACTOR        in ∇_a C = FACTOR (a - y)
//   BATCH         samples of a mini-batch at the most
//   ROW           type of the inputs' numbers: unsigned char or REAL
//   UNITS, QUADS, SINGLES, UNIT_LANES, UNIT_WARPS, SLICE_WARPS     as above
//   BUFFERS       2, or 1 where two mini-batches do not fit into shared memory
//   SHARED_BYTES  of the memory that the block was given
//   HELD          rows of a mini-batch that a warp holds in registers while they are on their way
//   VELOCITIES    1 with momentum, where every parameter has a velocity, else 0
//   NESTEROV      1 where the velocities look ahead, else 0
//   L1            1 where the weights' sizes are penalised, else 0
//   SHARED_QUADS  of a tile's QUADS, those whose velocities are in shared memory
#include "cuda_sigma.cuh"

constexpr int sizes[] = {SIZES};
constexpr int activations[] = {0, ACTIVATIONS};  // by layer, of which the input is layer 0
constexpr int L = sizeof(sizes) / sizeof(int) - 1;

constexpr int INPUTS = sizes[0], HIDDEN = sizes[1], OUTPUTS = sizes[L];
constexpr int SLICE_LANES = 32 / UNIT_LANES;
constexpr int WARPS = UNIT_WARPS * SLICE_WARPS, THREADS = 32 * WARPS;
constexpr int SLICES = SLICE_WARPS * SLICE_LANES;
constexpr int TILE_INPUTS = 4 * QUADS + SINGLES;
constexpr int TILED_UNITS = UNIT_WARPS * UNIT_LANES * UNITS;  // HIDDEN, filled up to whole tiles
constexpr int TWISTS = UNITS < SLICE_LANES ? UNITS : SLICE_LANES;  // see struct Tile

static_assert(TILED_UNITS >= HIDDEN, "every unit of the first hidden layer has an owner");
static_assert(4 * QUADS * SLICES <= INPUTS, "quads are whole");
static_assert(TILE_INPUTS * SLICES >= INPUTS, "every input has an owner");
static_assert((UNITS & (UNITS - 1)) == 0 && (UNIT_LANES & (UNIT_LANES - 1)) == 0, "powers of two");

struct alignas(16) Four {
    real x, y, z, w;
};

// ---- Shared memory: where everything lies, in numbers from its beginning ------------------------

constexpr int up(int n) { return (n + 3) / 4 * 4; }

// Rows of weights begin an odd number of fours apart: neighbouring units read different banks.
constexpr int row_of(int n_in) { return ((n_in + 3) / 4 | 1) * 4; }

constexpr int X = 0;                                            // (BUFFERS, BATCH, X_ROW)
constexpr int X_ROW = up(INPUTS);
constexpr int Y = X + BUFFERS * BATCH * X_ROW;                  // (BUFFERS, BATCH, OUTPUTS)
constexpr int PARTIAL = Y + up(BUFFERS * BATCH * OUTPUTS);      // (SLICE_WARPS, BATCH, TILED_UNITS)
constexpr int DELTA_1 = PARTIAL + SLICE_WARPS * BATCH * TILED_UNITS;  // (BATCH, TWISTS, TILED_UNITS)
constexpr int LAYERS = up(DELTA_1 + BATCH * TWISTS * TILED_UNITS);
static_assert(X_ROW % 4 == 0 && LAYERS % 4 == 0, "fours lie where they can be read at once");

// Layer l has b (out,), a (BATCH, up(out)) and, from the second on, W (out, row_of(in)) and δ (BATCH,
// out), in this order; behind them, with momentum, the velocities of b and W.
constexpr int size_of_w(int l) { return l > 1 ? sizes[l] * row_of(sizes[l - 1]) : 0; }

constexpr int size_of_layer(int l)
{
    return up(sizes[l]) + BATCH * up(sizes[l]) + size_of_w(l) + (l > 1 ? up(BATCH * sizes[l]) : 0)
        + (VELOCITIES ? up(sizes[l]) + size_of_w(l) : 0);
}

constexpr int layer_at(int l) { return l == 1 ? LAYERS : layer_at(l - 1) + size_of_layer(l - 1); }

// The tiles' velocities that are not in registers: fours of (SHARED_QUADS, UNITS, THREADS).
constexpr int VELOCITY_1 = layer_at(L + 1);

constexpr int SHARED_NUMBERS = VELOCITY_1 + 4 * SHARED_QUADS * UNITS * THREADS;
static_assert(SHARED_NUMBERS * sizeof(real) == SHARED_BYTES, "the block has what it needs");

template <int l>
struct Layer {
    static constexpr int in = sizes[l - 1], out = sizes[l], activation = activations[l];
    static constexpr int w_row = row_of(in), a_row = up(out);
    static constexpr int b = layer_at(l), a = b + up(out), w = a + BATCH * a_row;
    static constexpr int delta = l == 1 ? DELTA_1 : w + out * w_row;
    static constexpr int delta_row = l == 1 ? TWISTS * TILED_UNITS : out;
    static constexpr int velocity_b = l == 1 ? w : delta + up(BATCH * out);
    static constexpr int velocity_w = velocity_b + up(out);
};

extern __shared__ Four shared_memory[];

inline real* shared(int place) { return (real*)shared_memory + place; }

inline int lane() { return threadIdx.x % 32; }
inline int warp() { return threadIdx.x / 32; }

// ---- A mini-batch on its way from memory ---------------------------------------------------------

constexpr int PACK = INPUTS % 4 == 0 ? 4 : 1;

struct alignas(sizeof(ROW) * PACK) Pack {
    ROW number[PACK];
};

// A warp takes a row after the other, a lane every 32nd pack and label of it.
constexpr int ROW_PACKS = INPUTS / PACK;
constexpr int LANE_PACKS = (ROW_PACKS + 31) / 32, LANE_LABELS = (OUTPUTS + 31) / 32;
constexpr int WARP_ROWS = (BATCH + WARPS - 1) / WARPS;

struct Data {
    const ROW* inputs;             // (n, INPUTS)
    real scale;                    // of the inputs
    const unsigned char* targets;  // (n, OUTPUTS)
    const int* order;              // (n,)
    int start, stop;               // the run: order[start:stop], cut into mini-batches
};

// Samples of mini-batch t; none beyond the last.
inline int samples_of(const Data& data, int t)
{
    const int left = data.stop - data.start - t * BATCH;
    return left < 0 ? 0 : left < BATCH ? left : BATCH;
}

// Bytes to floats without the conversion, of which a GPU does few at a time: the bits of 2²³ + byte.
inline real number(float x) { return x; }
inline real number(double x) { return x; }
inline real number(unsigned char byte) { return __uint_as_float(0x4b000000u | byte) - 8388608.0f; }

// A lane's part of a row.
struct Part {
    Pack pack[LANE_PACKS];
    unsigned char label[LANE_LABELS];

    void read(const Data& data, int row)
    {
#pragma unroll
        for (int p = 0; p < LANE_PACKS; p++)
            if (lane() + 32 * p < ROW_PACKS)
                pack[p] = ((const Pack*)data.inputs)[(long long)row * ROW_PACKS + lane() + 32 * p];
#pragma unroll
        for (int p = 0; p < LANE_LABELS; p++)
            if (lane() + 32 * p < OUTPUTS)
                label[p] = data.targets[(long long)row * OUTPUTS + lane() + 32 * p];
    }

    // Put it where the sample belongs, scaled.
    void write(real scale, int buffer, int sample) const
    {
        real* x = shared(X + (buffer * BATCH + sample) * X_ROW);
#pragma unroll
        for (int p = 0; p < LANE_PACKS; p++) {
            if (lane() + 32 * p >= ROW_PACKS)
                continue;
            const auto scaled = [&](int k) { return scale * number(pack[p].number[k]); };
            if constexpr (PACK == 4)
                ((Four*)x)[lane() + 32 * p] = {scaled(0), scaled(1), scaled(2), scaled(3)};
            else
                x[lane() + 32 * p] = scaled(0);
        }
#pragma unroll
        for (int p = 0; p < LANE_LABELS; p++)
            if (lane() + 32 * p < OUTPUTS)
                shared(Y + (buffer * BATCH + sample) * OUTPUTS)[lane() + 32 * p] = label[p];
    }
};

// A lane's part of a mini-batch. Of the warp's rows the first HELD are sent for long before they are
// wanted, and wait in registers; the others are read when they are put where they belong.
struct Stage {
    int row[HELD];
    Part part[HELD];

    static int sample(int r) { return warp() + r * WARPS; }

    // Where the warp's r-th row of mini-batch t lies, or -1.
    static int row_of(const Data& data, int t, int r)
    {
        return sample(r) < samples_of(data, t) ? data.order[data.start + t * BATCH + sample(r)] : -1;
    }

    void look_up(const Data& data, int t)
    {
#pragma unroll
        for (int r = 0; r < HELD; r++)
            row[r] = row_of(data, t, r);
    }

    // Send for the rows that were looked up, and look up those of mini-batch t, the next.
    void fetch(const Data& data, int t)
    {
#pragma unroll
        for (int r = 0; r < HELD; r++)
            if (row[r] >= 0)
                part[r].read(data, row[r]);
        look_up(data, t);
    }

    // Put mini-batch t, which was fetched, into its buffer.
    void put(const Data& data, int t) const
    {
#pragma unroll
        for (int r = 0; r < HELD; r++)
            if (sample(r) < samples_of(data, t))
                part[r].write(data.scale, t % BUFFERS, sample(r));
        for (int r = HELD; r < WARP_ROWS; r++) {
            const int late = row_of(data, t, r);
            if (late < 0)
                return;
            Part now;
            now.read(data, late);
            now.write(data.scale, t % BUFFERS, sample(r));
        }
    }
};

// ---- A number's update ---------------------------------------------------------------------------

// As in reference.py, with the penalties multiplied by the rate: ηλ₁ and ηλ₂.
struct Rule {
    real mu, l1, l2, shrink;

    // Of biases nothing is penalised.
    Rule of_biases() const { return {mu, 0, 0, 1}; }
};

// What w becomes without a velocity, but for its gradient; λ₂ is part of shrink there.
inline real curtailed(const Rule& by, real w)
{
    return by.shrink * w - (L1 ? by.l1 * sign(w) : 0);
}

// Let w, and its velocity if there are any, do what they do by rate · sum, which is -η ∂C/∂w.
inline void update(const Rule& by, real rate, real sum, real& velocity, real& w)
{
    if constexpr (VELOCITIES) {
        real step = by.l2 * w - rate * sum;
        if constexpr (L1)
            step += by.l1 * sign(w);
        move(step, by.mu, NESTEROV, by.shrink, velocity, w);
    } else {
        w = curtailed(by, w) + rate * sum;
    }
}

// ---- The first layer's weights, in registers -----------------------------------------------------

// Lanes that have the same units and other slices add up their partial sums: in each of several
// halvings a lane passes half of the sums it still has to another, and gets those it keeps. So that
// it always keeps the first ones and need not choose, its units stand in an order of its own: u ^
// twist. Twins, where there are more slices than units to share out, both have the sum in the end.
constexpr int KEPT = UNITS > SLICE_LANES ? UNITS / SLICE_LANES : 1;
constexpr int TWINS = SLICE_LANES > UNITS ? SLICE_LANES / UNITS : 1;

// Columns of a tile whose velocities are in registers. Of none C++ has no array; one that is not used
// takes no register.
constexpr int HELD_VELOCITIES = VELOCITIES ? TILE_INPUTS - 4 * SHARED_QUADS : 0;

struct Tile {
    real w[UNITS][TILE_INPUTS];
    real held[UNITS][HELD_VELOCITIES ? HELD_VELOCITIES : 1];

    static int slice_lane() { return lane() / UNIT_LANES; }
    static int slice() { return warp() / UNIT_WARPS * SLICE_LANES + slice_lane(); }
    static int first_unit() { return (warp() % UNIT_WARPS * UNIT_LANES + lane() % UNIT_LANES) * UNITS; }
    static int twist() { return slice_lane() / TWINS * KEPT; }

    // The unit and the input that the weight w[u][k] leads to and from.
    static int unit(int u) { return first_unit() + (u ^ twist()); }
    static int input(int k)
    {
        return k < 4 * QUADS ? 4 * QUADS * slice() + k
                             : 4 * QUADS * SLICES + (k - 4 * QUADS) * SLICES + slice();
    }
    static bool exists(int u, int k) { return unit(u) < HIDDEN && input(k) < INPUTS; }

    // The velocity of the weight w[u][k].
    real& velocity(int u, int k)
    {
        if (k >= 4 * SHARED_QUADS)
            return held[u][k - 4 * SHARED_QUADS];
        return shared(VELOCITY_1)[((k / 4 * UNITS + u) * THREADS + threadIdx.x) * 4 + k % 4];
    }

    // Fill number(u, k) of all weights from an array of W¹'s shape, or write them into one.
    template <class Number>
    static void load(const real* from, Number number)
    {
#pragma unroll
        for (int u = 0; u < UNITS; u++)
#pragma unroll
            for (int k = 0; k < TILE_INPUTS; k++)
                number(u, k) = exists(u, k) ? from[unit(u) * INPUTS + input(k)] : 0;
    }

    template <class Number>
    static void store(real* to, Number number)
    {
#pragma unroll
        for (int u = 0; u < UNITS; u++)
#pragma unroll
            for (int k = 0; k < TILE_INPUTS; k++)
                if (exists(u, k))
                    to[unit(u) * INPUTS + input(k)] = number(u, k);
    }

    // Read those of a sample's numbers that a quad of this tile is for, or its singles, or all of it.
    static void read_quad(const real* x, int q, real part[4])
    {
        const Four four = *(const Four*)(x + 4 * QUADS * slice() + 4 * q);
        part[0] = four.x, part[1] = four.y, part[2] = four.z, part[3] = four.w;
    }

    static void read_singles(const real* x, real* part)
    {
#pragma unroll
        for (int k = 4 * QUADS; k < TILE_INPUTS; k++)
            part[k - 4 * QUADS] = input(k) < INPUTS ? x[input(k)] : 0;
    }

    static void read(const real* x, real part[TILE_INPUTS])
    {
#pragma unroll
        for (int q = 0; q < QUADS; q++)
            read_quad(x, q, part + 4 * q);
        read_singles(x, part + 4 * QUADS);
    }

    // W¹x over this warp's slices, for each sample of the mini-batch.
    void forward(int buffer, int m) const
    {
        const real* x = shared(X + buffer * BATCH * X_ROW);
        real* to = shared(PARTIAL + warp() / UNIT_WARPS * BATCH * TILED_UNITS + unit(0));
#pragma unroll 2
        for (int i = 0; i < m; i++, x += X_ROW, to += TILED_UNITS) {
            real part[TILE_INPUTS], z[UNITS];
            read(x, part);
#pragma unroll
            for (int u = 0; u < UNITS; u++) {
                z[u] = 0;
#pragma unroll
                for (int k = 0; k < TILE_INPUTS; k++)
                    z[u] += w[u][k] * part[k];
            }
            sum_over_slices(z);
            if (slice_lane() % TWINS == 0)
#pragma unroll
                for (int u = 0; u < KEPT; u++)
                    to[u] = z[u];
        }
    }

    static void sum_over_slices(real z[UNITS])
    {
        int n = UNITS;
#pragma unroll
        for (int other = SLICE_LANES / 2; other > 0; other /= 2) {
            if (n > 1) {
                n /= 2;
#pragma unroll
                for (int u = 0; u < n; u++)
                    z[u] += __shfl_xor_sync(0xffffffffu, z[u + n], other * UNIT_LANES);
            } else {
                z[0] += __shfl_xor_sync(0xffffffffu, z[0], other * UNIT_LANES);
            }
        }
    }

    // δ¹, which comes multiplied by -η/m, in this lane's order.
    static const real* minus_rated()
    {
        return shared(DELTA_1 + twist() / KEPT * TILED_UNITS + first_unit());
    }

    // BP4 without velocities: W¹ ← shrink · W¹ - η/m δ¹ xᵀ, each sample added straight to the weights.
    void descend(int buffer, int m, const Rule& by)
    {
        if (L1 || by.shrink != 1) {
#pragma unroll
            for (int u = 0; u < UNITS; u++)
#pragma unroll
                for (int k = 0; k < TILE_INPUTS; k++)
                    w[u][k] = curtailed(by, w[u][k]);
        }
        const real* x = shared(X + buffer * BATCH * X_ROW);
        const real* delta = minus_rated();
#pragma unroll 2
        for (int i = 0; i < m; i++, x += X_ROW, delta += TWISTS * TILED_UNITS) {
            real part[TILE_INPUTS], d[UNITS];
            read(x, part);
#pragma unroll
            for (int u = 0; u < UNITS; u++)
                d[u] = delta[u];
#pragma unroll
            for (int u = 0; u < UNITS; u++)
#pragma unroll
                for (int k = 0; k < TILE_INPUTS; k++)
                    w[u][k] += d[u] * part[k];
        }
    }

    // BP4 with velocities: the sum -η/m δ¹ xᵀ over the samples is needed by itself. It is made for a
    // quad after the other, and then for the singles, since all of it has no room in registers.
    void descend_with_velocities(int buffer, int m, const Rule& by)
    {
#pragma unroll
        for (int k = 0; k < TILE_INPUTS; k += 4) {
            const int columns = k < 4 * QUADS ? 4 : SINGLES;
            real sum[UNITS][4] = {};
            const real* x = shared(X + buffer * BATCH * X_ROW);
            const real* delta = minus_rated();
#pragma unroll 2
            for (int i = 0; i < m; i++, x += X_ROW, delta += TWISTS * TILED_UNITS) {
                real part[4];
                if (k < 4 * QUADS)
                    read_quad(x, k / 4, part);
                else
                    read_singles(x, part);
#pragma unroll
                for (int u = 0; u < UNITS; u++)
#pragma unroll
                    for (int c = 0; c < columns; c++)
                        sum[u][c] += delta[u] * part[c];
            }
#pragma unroll
            for (int u = 0; u < UNITS; u++)
#pragma unroll
                for (int c = 0; c < columns; c++)
                    update(by, 1, sum[u][c], velocity(u, k + c), w[u][k + c]);
        }
    }
};

// ---- The layers, a thread a number ---------------------------------------------------------------

// z = W a + b of sample i and unit j
template <int l>
real weighted_input(int i, int j)
{
    real z = shared(Layer<l>::b)[j];
    if constexpr (l == 1) {
#pragma unroll 4
        for (int s = 0; s < SLICE_WARPS; s++)
            z += shared(PARTIAL)[(s * BATCH + i) * TILED_UNITS + j];
    } else {
        const Four* w = (const Four*)shared(Layer<l>::w + j * Layer<l>::w_row);
        const Four* a = (const Four*)shared(Layer<l - 1>::a + i * Layer<l - 1>::a_row);
        Four sum = {0, 0, 0, 0};
#pragma unroll 8
        for (int k = 0; k < up(Layer<l>::in) / 4; k++) {
            sum.x += w[k].x * a[k].x, sum.y += w[k].y * a[k].y;
            sum.z += w[k].z * a[k].z, sum.w += w[k].w * a[k].w;
        }
        z += (sum.x + sum.y) + (sum.z + sum.w);
    }
    return z;
}

// Write δ of sample i and unit j; that of the first layer comes multiplied by -η/m, and goes into
// each order in which a lane wants it.
template <int l>
void put_delta(int i, int j, real d)
{
    real* row = shared(Layer<l>::delta + i * Layer<l>::delta_row);
    if constexpr (l == 1)
        for (int c = 0; c < TWISTS; c++)
            row[c * TILED_UNITS + (j ^ c * KEPT)] = d;
    else
        row[j] = d;
}

// Softmax of a row z (n,), of its number j
inline real softmax(const real* z, int n, int j)
{
    real largest = z[0], sum = 0;
    for (int k = 1; k < n; k++)
        largest = z[k] > largest ? z[k] : largest;
    for (int k = 0; k < n; k++)
        sum += exponential(z[k] - largest);
    return quotient(exponential(z[j] - largest), sum);
}

// From layer l up: a = σ(W a + b), and δᴸ (BP1). rate is -η/m.
template <int l>
void feed_forward(int buffer, int m, real rate)
{
    using This = Layer<l>;
    const auto delta = [=](int i, int j, real a) {
        const real y = shared(Y)[(buffer * BATCH + i) * OUTPUTS + j];
        const real d = output_delta_of(MATCHED ? int(IDENTITY) : This::activation, FACTOR, a, y);
        put_delta<l>(i, j, l == 1 ? rate * d : d);
    };
    for (int q = threadIdx.x; q < m * This::out; q += THREADS) {
        const int i = q / This::out, j = q % This::out;
        const real a = sigma(This::activation, weighted_input<l>(i, j));
        if constexpr (l < L || This::activation == SOFTMAX)
            shared(This::a)[i * This::a_row + j] = a;
        else
            delta(i, j, a);
    }
    __syncthreads();
    if constexpr (l < L) {
        feed_forward<l + 1>(buffer, m, rate);
    } else if constexpr (This::activation == SOFTMAX) {
        for (int q = threadIdx.x; q < m * OUTPUTS; q += THREADS) {
            const int i = q / OUTPUTS, j = q % OUTPUTS;
            delta(i, j, softmax(shared(This::a + i * This::a_row), OUTPUTS, j));
        }
        __syncthreads();
    }
}

// BP2 from layer l down: δˡ⁻¹ = (Wˡ)ᵀ δˡ ⊙ σ′; δ¹ is multiplied by rate, -η/m.
template <int l>
void backpropagate(int m, real rate)
{
    if constexpr (l > 1) {
        using This = Layer<l>;
        using Below = Layer<l - 1>;
        for (int q = threadIdx.x; q < m * This::in; q += THREADS) {
            const int i = q / This::in, k = q % This::in;
            real e = 0;
#pragma unroll 8
            for (int j = 0; j < This::out; j++)
                e += shared(This::delta)[i * This::out + j] * shared(This::w)[j * This::w_row + k];
            const real a = shared(Below::a)[i * Below::a_row + k];
            const real d = e * sigma_prime(Below::activation, a);
            put_delta<l - 1>(i, k, l == 2 ? rate * d : d);
        }
        __syncthreads();
        backpropagate<l - 1>(m, rate);
    }
}

// BP3 of every layer, and BP4 of those above the first, from layer l down; rate is -η/m. A bias is
// a weight from a unit that is always 1.
template <int l>
void descend(int m, real rate, const Rule& by)
{
    using This = Layer<l>;
    constexpr int weights = l > 1 ? This::in : 0;
    for (int q = threadIdx.x; q < This::out * (weights + 1); q += THREADS) {
        const int j = q / (weights + 1), k = q % (weights + 1);
        const real* delta = shared(This::delta + j);
        real sum = 0;
        if (k == weights) {
#pragma unroll 4
            for (int i = 0; i < m; i++)
                sum += delta[i * This::delta_row];
            update(by.of_biases(), l == 1 ? 1 : rate, sum, shared(This::velocity_b)[j],
                shared(This::b)[j]);
        } else if constexpr (l > 1) {
            const real* a = shared(Layer<l - 1>::a + k);
#pragma unroll 4
            for (int i = 0; i < m; i++)
                sum += delta[i * This::delta_row] * a[i * Layer<l - 1>::a_row];
            const int place = j * This::w_row + k;
            update(by, rate, sum, shared(This::velocity_w)[place], shared(This::w)[place]);
        }
    }
    if constexpr (l > 1)
        descend<l - 1>(m, rate, by);
}

// ---- Parameters in and out -----------------------------------------------------------------------

// parameters: W¹, b¹, W², b², ... by their addresses, or their velocities. What the first layer's
// weights have is the tile's.
template <int l, bool in, bool velocities>
void copy_parameters(real* const* parameters)
{
    using This = Layer<l>;
    constexpr int b = velocities ? This::velocity_b : This::b;
    constexpr int w = velocities ? This::velocity_w : This::w;
    const auto copy = [](real& there, real& here) { (in ? here : there) = in ? there : here; };
    for (int j = threadIdx.x; j < This::out; j += THREADS)
        copy(parameters[2 * l - 1][j], shared(b)[j]);
    if constexpr (l > 1)
        for (int q = threadIdx.x; q < This::out * This::in; q += THREADS)
            copy(parameters[2 * l - 2][q], shared(w)[q / This::in * This::w_row + q % This::in]);
    if constexpr (l < L)
        copy_parameters<l + 1, in, velocities>(parameters);
}

// ---- The run -------------------------------------------------------------------------------------

extern "C" __global__ void __launch_bounds__(THREADS, 1) epoch(const ROW* inputs, real scale,
    const unsigned char* targets, const int* order, int start, int stop, real rate, real shrink,
    real* const* parameters, real mu, real l1, real l2)
{
    const Data data = {inputs, scale, targets, order, start, stop};
    const Rule by = {mu, l1, l2, shrink};
    real* const* velocities = parameters + 2 * L;

    // What fills rows and tiles up is zero for good.
    for (int i = threadIdx.x; i < SHARED_NUMBERS; i += THREADS)
        shared(0)[i] = 0;
    __syncthreads();
    copy_parameters<1, true, false>(parameters);
    Tile tile;
    const auto weight = [&](int u, int k) -> real& { return tile.w[u][k]; };
    const auto velocity = [&](int u, int k) -> real& { return tile.velocity(u, k); };
    tile.load(parameters[0], weight);
    if constexpr (VELOCITIES) {
        copy_parameters<1, true, true>(velocities);
        tile.load(velocities[0], velocity);
    }

    Stage stage;
    stage.look_up(data, 0);
    stage.fetch(data, 1);
    stage.put(data, 0);
    if (BUFFERS == 2)
        stage.fetch(data, 2);
    __syncthreads();
    tile.forward(0, samples_of(data, 0));

    for (int t = 0; samples_of(data, t); t++) {
        const int buffer = t % BUFFERS, m = samples_of(data, t);
        const real minus_rate = -rate / m;
        __syncthreads();
        if (BUFFERS == 2)
            stage.put(data, t + 1);
        feed_forward<1>(buffer, m, minus_rate);
        backpropagate<L>(m, minus_rate);

        stage.fetch(data, t + 1 + BUFFERS);
        descend<L>(m, minus_rate, by);
        if constexpr (VELOCITIES)
            tile.descend_with_velocities(buffer, m, by);
        else
            tile.descend(buffer, m, by);
        if (BUFFERS == 1) {
            __syncthreads();
            stage.put(data, t + 1);
            __syncthreads();
        }
        tile.forward((t + 1) % BUFFERS, samples_of(data, t + 1));
    }
    __syncthreads();
    copy_parameters<1, false, false>(parameters);
    tile.store(parameters[0], weight);
    if constexpr (VELOCITIES) {
        copy_parameters<1, false, true>(velocities);
        tile.store(velocities[0], velocity);
    }
}
