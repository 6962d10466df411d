"""Products of small matrices as vector code: a tile of the result stays in registers throughout.

A compiler that vectorises loops by itself does not keep a tile of ten rows and two vectors in
registers; LLVM does when it is handed the vectors. So the two tiles that training needs are written
in LLVM's own instructions, generated for each number of rows, both widths and both precisions.

All matrices lie in one flat array, ``memory``: a matrix is the place of its first number and the
distance from row to row. Weights lie in panels, as many columns as a tile is wide, row upon row.
Only those columns of x take part that are listed: of a mini-batch of images, half of the pixels are
zero in every sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

Value: TypeAlias = Any  # of llvmlite.ir
Vectors: TypeAlias = list[Value]
Added: TypeAlias = Callable[[Vectors], Vectors]
Updating: TypeAlias = Callable[[Value, Added], None]

_FEATURES = cpu_target.target_context.codegen()._tm_features.split(",")
SIMD, VECTOR_BYTES = (
    ("AVX-512", 64)
    if "+avx512f" in _FEATURES
    else ("AVX2", 32)
    if "+avx2" in _FEATURES
    else ("128-bit vectors", 16)
)
PANEL = 2  # vectors; the last panel of a matrix may be one vector wide
# The most rows of a tile. More do not stay in the registers, 32 with AVX-512, else 16.
MOST_ROWS = 10 if VECTOR_BYTES == 64 else 5
# A tile asks for the weights so many columns ahead: the processor cannot guess which come next.
AHEAD = 16

_INDEX, _INT, _BYTE = ir.IntType(64), ir.IntType(32), ir.IntType(8)


def lanes(itemsize: int) -> int:
    """Return how many numbers a vector holds."""
    return VECTOR_BYTES // itemsize


class _Code:
    """Writes instructions on vectors of the numbers that a pointer points to."""

    def __init__(self, builder: ir.IRBuilder, memory: Value) -> None:
        self.builder, self._memory = builder, memory
        number = memory.type.pointee
        self._bytes = 4 if isinstance(number, ir.FloatType) else 8
        self.lanes = lanes(self._bytes)
        self.vector = ir.VectorType(number, self.lanes)
        self._fma = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(self.vector, [self.vector] * 3),
            f"llvm.fma.v{self.lanes}f{8 * self._bytes}",
        )

    def times(self, count: int, stride: Value) -> Value:
        return self.builder.mul(_INDEX(count), stride)

    def sum(self, *places: Value) -> Value:
        total = places[0]
        for place in places[1:]:
            total = self.builder.add(total, place)
        return total

    def _pointers(self, place: Value, vectors: int) -> list[Value]:
        b = self.builder
        places = [self.sum(place, _INDEX(self.lanes * v)) for v in range(vectors)]
        return [b.bitcast(b.gep(self._memory, [each]), self.vector.as_pointer()) for each in places]

    def load(self, place: Value, vectors: int) -> Vectors:
        pointers = self._pointers(place, vectors)
        return [self.builder.load(pointer, align=self._bytes) for pointer in pointers]

    def store(self, values: Vectors, place: Value) -> None:
        pointers = self._pointers(place, len(values))
        for value, pointer in zip(values, pointers, strict=True):
            self.builder.store(value, pointer, align=self._bytes)

    def prefetch(self, place: Value, vectors: int) -> None:
        for pointer in self._pointers(place, vectors):
            _prefetch(self.builder, pointer)

    def broadcast(self, place: Value) -> Value:
        """Load one number into every lane."""
        b, undefined = self.builder, ir.Constant(self.vector, ir.Undefined)
        number = b.load(b.gep(self._memory, [place]))
        first = b.insert_element(undefined, number, _INT(0))
        return self.shuffle(first, undefined, [0] * self.lanes)

    def shuffle(self, x: Value, y: Value, places: list[int]) -> Value:
        """Return the lanes at those places of x and y, y's counted on from x's."""
        mask = ir.Constant(ir.VectorType(_INT, self.lanes), places)
        return self.builder.shuffle_vector(x, y, mask)

    def product(self, x: Value, y: Vectors) -> Vectors:
        """Return x · y."""
        return [self.builder.fmul(x, each) for each in y]

    def sign(self, x: Vectors) -> Vectors:
        """Return sgn x: 1, 0 or -1."""
        b, number = self.builder, self.vector.element
        zero, one, minus = (
            ir.Constant(self.vector, [ir.Constant(number, value)] * self.lanes)
            for value in (0.0, 1.0, -1.0)
        )
        return [
            b.select(
                b.fcmp_ordered(">", each, zero),
                one,
                b.select(b.fcmp_ordered("<", each, zero), minus, zero),
            )
            for each in x
        ]

    def add_product(self, x: Value, y: Vectors, onto: Vectors) -> Vectors:
        """Return onto + x · y."""
        return [self.builder.call(self._fma, [x, *each]) for each in zip(y, onto, strict=True)]


def _prefetch(builder: ir.IRBuilder, pointer: Value) -> None:
    """Ask for what lies there, so that it is in the first level of the cache when it is needed."""
    ask = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(ir.VoidType(), [_BYTE.as_pointer(), _INT, _INT, _INT]),
        "llvm.prefetch.p0",
    )
    to_read, close, data = _INT(0), _INT(3), _INT(1)
    builder.call(ask, [builder.bitcast(pointer, _BYTE.as_pointer()), to_read, close, data])


def _loop(
    b: ir.IRBuilder,
    count: Value,
    carried: Vectors,
    body: Callable[[Value, Vectors], Vectors],
) -> Vectors:
    """For k in 0 … count - 1, at least once: carried ← body(k, carried). Return the last."""
    before, block = b.block, b.function.append_basic_block("loop")
    after = b.function.append_basic_block("after")
    b.branch(block)
    b.position_at_end(block)
    k, values = b.phi(_INDEX), [b.phi(value.type) for value in carried]
    for phi, value in zip([k, *values], [_INDEX(0), *carried], strict=True):
        phi.add_incoming(value, before)
    carried = body(k, values)
    following = b.add(k, _INDEX(1))
    for phi, value in zip([k, *values], [following, *carried], strict=True):
        phi.add_incoming(value, block)
    branch = b.cbranch(b.icmp_signed("<", following, count), block, after)
    branch.set_metadata("llvm.loop", _never_unrolled(b.module))
    b.position_at_end(after)
    return carried


def _never_unrolled(module: ir.Module) -> Value:
    """Return a loop's metadata: unrolled, its tile would no longer fit into the registers."""
    disable = module.add_metadata([ir.MetaDataString(module, "llvm.loop.unroll.disable")])
    # One for each loop, which LLVM knows by its first operand's being itself.
    name = ir.MetaDataString(module, f"loop {len(module.metadata)}")
    node = module.add_metadata([disable, name])
    node.operands = (node, disable)
    return node


def _for_each_number_of_rows(
    builder: ir.IRBuilder,
    name: str,
    rows: Value,
    arguments: Sequence[Value],
    write: Callable[..., None],
) -> None:
    """Call the tile of so many rows: a function of its own, so that it has all registers."""
    signature = ir.FunctionType(ir.VoidType(), [argument.type for argument in arguments])
    after = builder.function.append_basic_block("after")
    switch = builder.switch(rows, after)
    for number in range(1, MOST_ROWS + 1):
        tile = cgutils.get_or_insert_function(builder.module, signature, f"{name}_{number}")
        if tile.is_declaration:
            tile.linkage = "internal"
            tile.attributes.add("noinline")
            inside = ir.IRBuilder(tile.append_basic_block("entry"))
            write(inside, number, *tile.args)
            inside.ret_void()
        block = builder.function.append_basic_block(f"rows_{number}")
        switch.add_case(_INDEX(number), block)
        builder.position_at_end(block)
        builder.call(tile, arguments)
        builder.branch(after)
    builder.position_at_end(after)


def _data(context: Any, builder: ir.IRBuilder, array_type: Any, array: Value) -> Value:
    """Return the pointer to an array's first number."""
    return context.make_array(array_type)(context, builder, array).data


def _tile(name: str, width: int, memory: Any, columns: Any, places: int, write: Any) -> Any:
    """Return what an intrinsic returns: the signature of a tile, and what generates it."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Value:
        _, rows, memory_, columns_, first, *rest = arguments
        listed = builder.gep(_data(context, builder, columns, columns_), [first])
        pointers = [_data(context, builder, memory, memory_), listed]
        full_name = f"{name}_{memory.dtype}_{width}"
        _for_each_number_of_rows(builder, full_name, rows, [*pointers, *rest], write)
        return context.get_dummy_value()

    integers = [types.int64] * places
    literal = types.literal(width)
    return types.void(literal, types.int64, memory, columns, types.int64, *integers), generate


def _next_column(
    code: _Code, width: int, w: Value, columns: Value, k: Value, beside: Value | None = None
) -> tuple[Value, Value]:
    """Return the k-th listed column of x, and the place of the row of w that belongs to it.

    The row that will be needed AHEAD of it is asked for, and what lies ``beside`` it.
    """
    b = code.builder

    def listed(k: Value) -> tuple[Value, Value]:
        column = b.sext(b.load(b.gep(columns, [k])), _INDEX)
        return column, code.sum(w, code.times(width * code.lanes, column))

    _, soon = listed(b.add(k, _INDEX(AHEAD)))
    code.prefetch(soon, width)
    if beside is not None:
        code.prefetch(code.sum(soon, beside), width)
    return listed(k)


@intrinsic(prefer_literal=True)
def forward_tile(  # type: ignore[no-untyped-def]
    typing,
    vectors,
    rows,
    memory,
    columns,
    first,
    count,
    x,
    x_row,
    w,
    init,
    init_row,
    out,
    out_row,
):
    """out[r] = init[r] + Σ_c x[r, c] w[c], over ``count`` ≥ 1 of the columns from the first on.

    x (rows, ·); w a panel; init and out (rows, so many vectors).
    """
    width = vectors.literal_value

    def write(
        b: ir.IRBuilder,
        rows: int,
        memory: Value,
        columns: Value,
        count: Value,
        x: Value,
        x_row: Value,
        w: Value,
        init: Value,
        init_row: Value,
        out: Value,
        out_row: Value,
    ) -> None:
        code = _Code(b, memory)

        def add_column(k: Value, tile: Vectors) -> Vectors:
            column, place = _next_column(code, width, w, columns, k)
            w_c, at_column, added = code.load(place, width), code.sum(x, column), []
            for r in range(rows):
                x_rc = code.broadcast(code.sum(at_column, code.times(r, x_row)))
                added += code.add_product(x_rc, w_c, tile[r * width : (r + 1) * width])
            return added

        tile: Vectors = []
        for r in range(rows):
            tile += code.load(code.sum(init, code.times(r, init_row)), width)
        tile = _loop(b, count, tile, add_column)
        for r in range(rows):
            code.store(tile[r * width : (r + 1) * width], code.sum(out, code.times(r, out_row)))

    return _tile("forward", width, memory, columns, 8, write)


@intrinsic(prefer_literal=True)
def update_tile(  # type: ignore[no-untyped-def]
    typing, vectors, rows, memory, columns, first, count, x, x_row, delta, delta_row, w
):
    """w[c] ← w[c] + Σ_r x[r, c] delta[r], for ``count`` ≥ 1 of the columns from the first on.

    x (rows, ·); delta (rows, so many vectors); w a panel.
    """

    def updating(code: _Code, width: int) -> Updating:
        return lambda place, add: code.store(add(code.load(place, width)), place)

    return _update("update", vectors.literal_value, memory, columns, updating)


@intrinsic(prefer_literal=True)
def shrink_tile(  # type: ignore[no-untyped-def]
    typing, vectors, rows, memory, columns, first, count, x, x_row, delta, delta_row, w, shrink
):
    """w[c] ← s w[c] + Σ_r x[r, c] delta[r], as :func:`update_tile`; s lies at the place shrink."""

    def updating(code: _Code, width: int, shrink: Value) -> Updating:
        s = code.broadcast(shrink)
        return lambda place, add: code.store(add(code.product(s, code.load(place, width))), place)

    return _update("shrink", vectors.literal_value, memory, columns, updating, 1)


@intrinsic(prefer_literal=True)
def momentum_tile(  # type: ignore[no-untyped-def]
    typing, vectors, rows, memory, columns, first, count, x, x_row, delta, delta_row, w, how, beside
):
    """v[c] ← μ v[c] - λ w[c] + Σ_r x[r, c] delta[r], w[c] ← w[c] + κ v[c] - ν (the v[c] before).

    As :func:`update_tile`; v lies ``beside`` numbers behind w, and at the place how μ, -λ, κ, -ν.
    """
    return _update("momentum", vectors.literal_value, memory, columns, _moving, 2)


@intrinsic(prefer_literal=True)
def penalty_tile(  # type: ignore[no-untyped-def]
    typing, vectors, rows, memory, columns, first, count, x, x_row, delta, delta_row, w, how, beside
):
    """As :func:`momentum_tile`, and v[c] is less by λ₁ sgn w[c]; the fifth number is -λ₁."""

    def updating(code: _Code, width: int, how: Value, beside: Value) -> Updating:
        return _moving(code, width, how, beside, penalty=True)

    return _update("penalty", vectors.literal_value, memory, columns, updating, 2)


def _moving(code: _Code, width: int, how: Value, beside: Value, penalty: bool = False) -> Updating:
    """Return what writes the update of a row of w that has a velocity."""

    def update(place: Value, add: Added) -> None:
        # Loaded anew each time: with the deltas they would not all stay in the registers.
        mu, decay, kappa, nu = (code.broadcast(code.sum(how, _INDEX(i))) for i in range(4))
        at_v = code.sum(place, beside)
        w_c, before = code.load(place, width), code.load(at_v, width)
        start = code.add_product(decay, w_c, code.product(mu, before))
        if penalty:
            sharp = code.broadcast(code.sum(how, _INDEX(4)))
            start = code.add_product(sharp, code.sign(w_c), start)
        v_c = add(start)
        code.store(v_c, at_v)
        code.store(code.add_product(nu, before, code.add_product(kappa, v_c, w_c)), place)

    return update


@intrinsic(prefer_literal=True)
def combine_tile(typing, vectors, memory, w, beside, powers):  # type: ignore[no-untyped-def]
    """w ← p₀ w + p₁ v, v ← p₂ w + p₃ v, with w before: so many vectors, and v ``beside`` them.

    The p lie at the place powers.
    """
    width = vectors.literal_value

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Value:
        _, memory_, w_, beside_, powers_ = arguments
        code = _Code(builder, _data(context, builder, memory, memory_))
        p = [code.broadcast(code.sum(powers_, _INDEX(i))) for i in range(4)]
        at_v = code.sum(w_, beside_)
        w_c, v_c = code.load(w_, width), code.load(at_v, width)
        code.store(code.add_product(p[1], v_c, code.product(p[0], w_c)), w_)
        code.store(code.add_product(p[3], v_c, code.product(p[2], w_c)), at_v)
        return context.get_dummy_value()

    return types.void(types.literal(width), memory, *[types.int64] * 3), generate


def _update(
    name: str,
    width: int,
    memory: Any,
    columns: Any,
    updating: Callable[..., Updating],
    more: int = 0,
) -> Any:
    """Return what an intrinsic returns: a tile that updates the rows of w one after the other.

    ``updating`` returns what writes the update of a row, from its place and a function that adds
    Σ_r x[r, c] delta[r] to vectors. It is given as many further arguments of the tile as there are
    ``more``: by which numbers, and how far from w something lies that changes, too.
    """

    def write(
        b: ir.IRBuilder,
        rows: int,
        memory: Value,
        columns: Value,
        count: Value,
        x: Value,
        x_row: Value,
        delta: Value,
        delta_row: Value,
        w: Value,
        *rest: Value,
    ) -> None:
        code = _Code(b, memory)
        deltas = [code.load(code.sum(delta, code.times(r, delta_row)), width) for r in range(rows)]

        update = updating(code, width, *rest)

        def update_row(k: Value, _: Vectors) -> Vectors:
            column, place = _next_column(code, width, w, columns, k, *rest[1:])
            at_column = code.sum(x, column)

            def add_products(onto: Vectors) -> Vectors:
                for r in range(rows):
                    x_rc = code.broadcast(code.sum(at_column, code.times(r, x_row)))
                    onto = code.add_product(x_rc, deltas[r], onto)
                return onto

            update(place, add_products)
            return []

        _loop(b, count, [], update_row)

    return _tile(name, width, memory, columns, 6 + more, write)


@intrinsic
def transpose_tile(typing, memory, x, x_row, out, out_row):  # type: ignore[no-untyped-def]
    """out[j, i] = x[i, j] of a square with as many rows as a vector holds numbers."""

    def generate(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Value:
        memory_, x_, x_row_, out_, out_row_ = arguments
        code = _Code(builder, _data(context, builder, memory, memory_))
        n = code.lanes
        rows = [code.load(code.sum(x_, code.times(i, x_row_)), 1)[0] for i in range(n)]
        distance = n // 2
        while distance:  # in ever smaller squares, swap the quarters off the diagonal
            near = [j if not j & distance else n + j - distance for j in range(n)]
            far = [j + distance if not j & distance else n + j for j in range(n)]
            for i in range(n):
                if not i & distance:
                    pair = rows[i], rows[i + distance]
                    rows[i] = code.shuffle(*pair, near)
                    rows[i + distance] = code.shuffle(*pair, far)
            distance //= 2
        for i, row in enumerate(rows):
            code.store([row], code.sum(out_, code.times(i, out_row_)))
        return context.get_dummy_value()

    return types.void(memory, *[types.int64] * 4), generate


@intrinsic
def list_used(typing, used, columns, first):  # type: ignore[no-untyped-def]
    """From columns[first] on, list where ``used`` is not 0; return how many places these are.

    The length of used is a multiple of 64. Up to 16 places more than are listed are overwritten.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Value:
        used_, columns_, first_ = arguments
        out = b.gep(_data(context, b, columns, columns_), [first_])

        def list_some(flags: Value, places: Value, _: Value) -> tuple[Value, list[Any]]:
            return flags, [(places, out)]

        return _listed(context, b, used, used_, list_some)

    return types.int64(used, columns, types.int64), generate


@intrinsic
def list_coming(typing, used, seen, number, columns, missed):  # type: ignore[no-untyped-def]
    """List in columns where ``used`` is not 0 and ``seen`` below the number; return how many.

    ``missed`` gets what there is between, and where it is used seen becomes the number + 1. As
    :func:`list_used`, of int32.
    """

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Value:
        used_, seen_, number_, columns_, missed_ = arguments
        data = [
            _data(context, b, kind, array)
            for kind, array in ((seen, seen_), (columns, columns_), (missed, missed_))
        ]
        now = _in_every_lane(b, b.trunc(number_, _INT))

        def list_some(flags: Value, places: Value, at: Value) -> tuple[Value, list[Any]]:
            pointer = b.bitcast(b.gep(data[0], [at]), places.type.as_pointer())
            known = b.load(pointer, align=4)
            following = b.add(now, ir.Constant(now.type, [1] * now.type.count))
            b.store(b.select(flags, following, known), pointer, align=4)
            come = b.and_(flags, b.icmp_signed("<", known, now))
            return come, [(places, data[1]), (b.sub(now, known), data[2])]

        return _listed(context, b, used, used_, list_some)

    return types.int64(used, seen, types.int64, columns, missed), generate


def _in_every_lane(b: ir.IRBuilder, number: Value) -> Value:
    undefined = ir.Constant(ir.VectorType(number.type, VECTOR_BYTES // 4), ir.Undefined)
    first = b.insert_element(undefined, number, _INT(0))
    mask = ir.Constant(ir.VectorType(_INT, undefined.type.count), [0] * undefined.type.count)
    return b.shuffle_vector(first, undefined, mask)


def _listed(context: Any, b: ir.IRBuilder, used: Any, used_: Value, list_some: Any) -> Value:
    """Go through bytes, as many at a time as a vector has int32; return how many were listed.

    ``list_some`` is given where they are not 0, their places, and the first of these; it returns
    which are listed, and pairs of vectors and where their lanes go, one behind the other.
    """
    n = VECTOR_BYTES // 4
    integers = ir.VectorType(_INT, n)
    array = context.make_array(used)(context, b, used_)
    length = b.extract_value(array.shape, 0)
    compress = cgutils.get_or_insert_function(
        b.module,
        ir.FunctionType(integers, [integers, ir.VectorType(ir.IntType(1), n), integers]),
        f"llvm.experimental.vector.compress.v{n}i32",
    )

    def some(k: Value, carried: Vectors) -> Vectors:
        count, places = carried
        at = b.mul(k, _INDEX(n))
        pointer = b.bitcast(b.gep(array.data, [at]), ir.VectorType(_BYTE, n).as_pointer())
        flags = b.load(pointer, align=1)
        not_0 = b.icmp_unsigned("!=", flags, ir.Constant(flags.type, [0] * n))
        mask, outs = list_some(not_0, places, at)
        for values, out in outs:
            listed = b.call(compress, [values, mask, ir.Constant(integers, ir.Undefined)])
            b.store(listed, b.bitcast(b.gep(out, [count]), integers.as_pointer()), align=4)
        more = b.zext(b.ctpop(b.bitcast(mask, ir.IntType(n))), _INDEX)
        return [b.add(count, more), b.add(places, ir.Constant(integers, [n] * n))]

    start = [_INDEX(0), ir.Constant(integers, list(range(n)))]
    return _loop(b, b.sdiv(length, _INDEX(n)), start, some)[0]


@intrinsic
def prefetch(typing, rows, row, byte):  # type: ignore[no-untyped-def]
    """Ask for the cache line of a byte of a row, which will be needed soon."""

    def generate(context: Any, b: ir.IRBuilder, signature: Any, arguments: Any) -> Value:
        rows_, row_, byte_ = arguments
        array = context.make_array(rows)(context, b, rows_)
        place = b.add(b.mul(row_, b.extract_value(array.strides, 0)), byte_)
        _prefetch(b, b.gep(b.bitcast(array.data, _BYTE.as_pointer()), [place]))
        return context.get_dummy_value()

    return types.void(rows, types.int64, types.int64), generate
