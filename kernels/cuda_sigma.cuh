// σ, σ′, BP1 and momentum, a number at a time, for every CUDA kernel here. Their specification is
// reference.py: the activations are numbered in the order of its SIGMA.
//
// The sources need no header but this one and are compiled with the definitions
//   REAL   float or double
//   LEAK   the slope of leaky-relu below zero
#pragma once

typedef REAL real;

enum Activation { SIGMOID, TANH, RELU, LEAKY_RELU, IDENTITY, SOFTMAX };

inline float exponential(float x) { return __expf(x); }
inline double exponential(double x) { return exp(x); }
inline float quotient(float x, float y) { return __fdividef(x, y); }
inline double quotient(double x, double y) { return x / y; }
inline float tangent(float x) { return tanhf(x); }
inline double tangent(double x) { return tanh(x); }
inline float root(float x) { return sqrtf(x); }
inline double root(double x) { return sqrt(x); }

// a = σ(z), where the activation goes unit by unit: all but softmax, which leaves z as it is. An
// e^{-z} that overflows makes a = 0, and a z that is no number stays none.
inline real sigma(int activation, real z)
{
    switch (activation) {
    case SIGMOID: return quotient(real(1), 1 + exponential(-z));
    case TANH: return tangent(z);
    case RELU: return z < 0 ? real(0) : z;
    case LEAKY_RELU: return z < 0 ? real(LEAK) * z : z;
    default: return z;
    }
}

// σ′(z), by a = σ(z)
inline real sigma_prime(int activation, real a)
{
    switch (activation) {
    case SIGMOID: return a * (1 - a);
    case TANH: return 1 - a * a;
    case RELU: return a > 0 ? real(1) : real(0);
    case LEAKY_RELU: return a > 0 ? real(1) : real(LEAK);
    default: return 1;
    }
}

// BP1: δ = ∇_a C ⊙ σ′(z). ∇_a C = factor · (a - y); where a cost is matched to its activation, factor
// is 1 and the activation to be given here is IDENTITY.
inline real output_delta_of(int activation, real factor, real a, real y)
{
    return factor * (a - y) * sigma_prime(activation, a);
}

// sgn w
inline real sign(real w) { return w > 0 ? real(1) : w < 0 ? real(-1) : real(0); }

// v ← μv - s, w ← shrink · w + v, by Nesterov + μv - s
inline void move(real step, real mu, int nesterov, real shrink, real& velocity, real& w)
{
    const real v = mu * velocity - step;
    velocity = v;
    w = shrink * w + (nesterov ? mu * v - step : v);
}
