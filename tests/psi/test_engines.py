"""Every engine that this machine has gives the known powers and products, and nothing but those."""

from __future__ import annotations

import gc
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from psi import engines
from psi.engines import choice, multibuffer, openssl, plain, selftest
from psi.engines.interface import CurveMultiply, RsaNumbers, RsaPower
from psi.errors import BadArgument, BadElement, ComputeFault

SIZES = (2048, 3072, 4096)
COUNTS = (0, 1, 7, 8, 9, 17)

# RFC 7748, section 5.2
VECTORS = [
    (
        "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
        "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
        "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
    ),
    (
        "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
        "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
        "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
    ),
]
AFTER_1000 = "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51"
P = 2**255 - 19
SMALL_ORDER = [0, 1, P - 1, P, P + 1, 325606250916557431795983626356110631294008115727848805560023387167927233504]


def private(name: str, numbers: RsaNumbers) -> RsaPower:
    if name not in engines.available_rsa(numbers.n.bit_length()):
        pytest.skip(f"no engine {name!r} for this size here: {multibuffer.why_not()}")
    return engines.rsa_private(numbers, name)


def public(name: str, numbers: RsaNumbers) -> RsaPower:
    if name not in engines.available_rsa(numbers.n.bit_length()):
        pytest.skip(f"no engine {name!r} for this size here: {multibuffer.why_not()}")
    return engines.rsa_public(numbers.n, numbers.e, name)


def curve(name: str) -> CurveMultiply:
    if name not in engines.available_curve():
        pytest.skip(f"no engine {name!r} here: {multibuffer.why_not()}")
    return engines.curve(name)


def pack(numbers: list[int], width: int) -> bytes:
    return b"".join(number.to_bytes(width, "big") for number in numbers)


def roots_and_powers(numbers: RsaNumbers, count: int) -> tuple[bytes, bytes]:
    """Numbers with 2 and n - 2 among them, and their public powers by Python's own arithmetic."""
    roots = [2, numbers.n - 2, 0, 1, numbers.n - 1][:count]
    roots += [secrets.randbelow(numbers.n) for _ in range(count - len(roots))]
    secrets.SystemRandom().shuffle(roots)
    powers = [pow(root, numbers.e, numbers.n) for root in roots]
    return pack(roots, numbers.width), pack(powers, numbers.width)


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    """Forget which engines work, before the test changes them and after it."""
    for cached in (engines.available_rsa, engines.available_curve):
        cached.cache_clear()
    yield
    for cached in (engines.available_rsa, engines.available_curve):
        cached.cache_clear()


@pytest.mark.parametrize("bits", SIZES)
@pytest.mark.parametrize("name", engines.RSA_ENGINES)
def test_an_engine_gives_the_same_powers_as_pow(name: str, bits: int) -> None:
    numbers = selftest.key_of(bits)
    private_power, public_power = private(name, numbers), public(name, numbers)
    for count in COUNTS:
        roots, powers = roots_and_powers(numbers, count)
        assert public_power(roots) == powers
        assert private_power(powers) == roots


@pytest.mark.parametrize("name", engines.RSA_ENGINES)
def test_the_private_power_of_2_and_of_n_minus_2_is_that_of_pow(name: str) -> None:
    numbers = selftest.key_of(2048)
    d = pow(numbers.e, -1, (numbers.p - 1) * (numbers.q - 1))
    elements = [2, numbers.n - 2, 3]
    expected = pack([pow(element, d, numbers.n) for element in elements], numbers.width)
    assert private(name, numbers)(pack(elements, numbers.width)) == expected


@pytest.mark.parametrize("name", engines.RSA_ENGINES)
def test_the_order_of_the_primes_does_not_matter(name: str) -> None:
    one = selftest.key_of(2048)
    other = replace(one, p=one.q, q=one.p, d_p=one.d_q, d_q=one.d_p, q_inverse=pow(one.p, -1, one.q))
    assert (one.p > one.q) != (other.p > other.q)
    roots, powers = roots_and_powers(one, 9)
    assert private(name, one)(powers) == private(name, other)(powers) == roots


@pytest.mark.parametrize("name", engines.RSA_ENGINES)
def test_two_threads_share_an_rsa_engine(name: str) -> None:
    numbers = selftest.key_of(2048)
    private_power, public_power = private(name, numbers), public(name, numbers)
    parts = [roots_and_powers(numbers, 9) for _ in range(8)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(private_power, [powers for _, powers in parts])) == [roots for roots, _ in parts]
        assert list(pool.map(public_power, [roots for roots, _ in parts])) == [powers for _, powers in parts]


@pytest.mark.parametrize("name", engines.RSA_ENGINES)
def test_bytes_that_are_not_whole_elements_are_refused(name: str) -> None:
    numbers = selftest.key_of(2048)
    for power in (private(name, numbers), public(name, numbers)):
        with pytest.raises(BadArgument, match="multiple of 256"):
            power(bytes(257))


@pytest.mark.parametrize("name", ["openssl", "gmpy2"])
def test_a_size_and_an_exponent_that_are_unusual_work_too(name: str) -> None:
    numbers = selftest.key_of(2048)
    p, q = numbers.p, selftest.key_of(3072).q
    e = 65539
    odd = RsaNumbers(p * q, e, p, q, pow(e, -1, p - 1), pow(e, -1, q - 1), pow(q, -1, p))
    roots, powers = roots_and_powers(odd, 3)
    assert public(name, odd)(roots) == powers
    assert private(name, odd)(powers) == roots


def test_openssl_repairs_a_power_that_the_primes_give_wrong() -> None:
    numbers = selftest.key_of(2048)
    power = private("openssl", replace(numbers, d_p=numbers.d_p ^ 2))
    roots, powers = roots_and_powers(numbers, 3)
    assert power.verifies
    assert power(powers) == roots


@pytest.mark.parametrize("name", ["multibuffer", "gmpy2"])
def test_an_engine_that_does_not_verify_says_so(name: str) -> None:
    numbers = selftest.key_of(2048)
    power = private(name, replace(numbers, d_p=numbers.d_p ^ 2))
    roots, powers = roots_and_powers(numbers, 9)
    assert not power.verifies
    assert power(powers) != roots


def test_openssl_reports_an_element_that_is_not_below_the_modulus() -> None:
    numbers = selftest.key_of(2048)
    for power in (private("openssl", numbers), public("openssl", numbers)):
        with pytest.raises(ComputeFault, match="OpenSSL reports a failure at a power"):
            power(b"\xff" * numbers.width)
        roots, powers = roots_and_powers(numbers, 1)  # and goes on afterwards
        assert power(powers if power.verifies else roots) == (roots if power.verifies else powers)


@pytest.mark.parametrize("name", engines.CURVE_ENGINES)
@pytest.mark.parametrize("count", COUNTS)
def test_an_engine_gives_the_products_of_rfc_7748(name: str, count: int) -> None:
    multiply = curve(name)
    for scalar, point, product in VECTORS:
        assert multiply(bytes.fromhex(scalar), bytes.fromhex(point) * count) == bytes.fromhex(product) * count


@pytest.mark.parametrize("name", engines.CURVE_ENGINES)
def test_a_thousand_products_in_a_row_are_those_of_rfc_7748(name: str) -> None:
    multiply = curve(name)
    scalar = point = (9).to_bytes(32, "little")
    for _ in range(1000):
        scalar, point = multiply(scalar, point), scalar
    assert scalar.hex() == AFTER_1000


def test_engines_agree_on_points_of_all_kinds() -> None:
    scalar = secrets.token_bytes(32)
    near_p = [number for number in range(P - 300, 2**255) if number not in SMALL_ORDER]  # u >= p is allowed too
    near_p += [P - 2 - 2**power for power in range(230)]  # and so is the top bit, which is ignored
    points = b"".join((number | secrets.randbits(1) << 255).to_bytes(32, "little") for number in near_p)
    points += secrets.token_bytes(32 * 84)  # half of them on the twist
    assert len({engines.curve(name)(scalar, points) for name in engines.available_curve()}) == 1


@pytest.mark.parametrize("name", engines.CURVE_ENGINES)
@pytest.mark.parametrize("number", SMALL_ORDER)
def test_a_point_of_small_order_is_refused_with_its_position(name: str, number: int) -> None:
    multiply = curve(name)
    small = number.to_bytes(32, "little")
    for position, count in [(0, 1), (0, 9), (7, 8), (8, 9), (13, 17)]:
        points = [secrets.token_bytes(32) for _ in range(count)]
        points[position] = small
        points[-1] = small if position == 13 else points[-1]  # the first one is named
        with pytest.raises(BadElement, match=f"the point at position {position} of this call has small order"):
            multiply(secrets.token_bytes(32), b"".join(points))


@pytest.mark.parametrize("name", engines.CURVE_ENGINES)
def test_two_threads_share_a_curve_engine(name: str) -> None:
    multiply = curve(name)
    scalars = [secrets.token_bytes(32) for _ in range(16)]
    points = secrets.token_bytes(32 * 100)
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(lambda scalar: multiply(scalar, points), scalars))
    assert together == [plain.PlainCurve()(scalar, points) for scalar in scalars]


@pytest.mark.parametrize("name", engines.CURVE_ENGINES)
def test_scalars_and_points_of_another_length_are_refused(name: str) -> None:
    with pytest.raises(BadArgument, match="multiple of 32"):
        curve(name)(bytes(32), bytes(33))
    with pytest.raises(BadArgument, match="scalar has 31 bytes; expected 32"):
        curve(name)(bytes(31), bytes(32))


def test_the_plain_engines_are_there_on_every_machine() -> None:
    assert engines.available_rsa(2048)[-1] == "gmpy2"
    assert engines.available_curve()[-1] == "cryptography"


def test_the_fastest_engine_is_taken_unless_one_is_named() -> None:
    numbers = selftest.key_of(2048)
    assert engines.rsa_private(numbers).name == engines.available_rsa(2048)[0]
    assert engines.rsa_public(numbers.n, numbers.e).name == engines.available_rsa(2048)[0]
    assert engines.curve().name == engines.available_curve()[0]
    assert engines.rsa_private(numbers, "gmpy2").name == "gmpy2"
    assert engines.curve("cryptography").name == "cryptography"


def test_a_key_that_the_batched_engine_lacks_goes_to_another() -> None:
    numbers = selftest.key_of(2048)
    assert engines.rsa_public(numbers.n, 65539).name != "multibuffer"
    assert "multibuffer" not in engines.available_rsa(2560)
    with pytest.raises(BadArgument, match="engine is 'multibuffer'"):
        engines.rsa_public(numbers.n, 65539, "multibuffer")


@pytest.mark.parametrize(
    "ask",
    [
        lambda: engines.rsa_private(selftest.key_of(2048), "abacus"),
        lambda: engines.rsa_public(selftest.key_of(2048).n, 65537, "abacus"),
        lambda: engines.curve("abacus"),
    ],
)
def test_an_unknown_engine_is_refused_with_the_names_of_those_here(ask: Callable[[], object]) -> None:
    with pytest.raises(
        BadArgument, match=r"engine is 'abacus'.*expected one of those that can: .*'(gmpy2|crypt)"
    ) as caught:
        ask()
    here = set(engines.available_rsa(2048)) | set(engines.available_curve())
    assert any(f"'{name}'" in str(caught.value) for name in here)


@pytest.mark.usefixtures("fresh_choice")
def test_an_engine_that_does_not_load_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multibuffer, "_load", lambda: "the processor is a toaster")
    assert "multibuffer" not in engines.available_rsa(2048)
    assert engines.available_curve() == ("cryptography",)
    with pytest.raises(BadArgument, match=r"\(the processor is a toaster\); expected one of those that can: "):
        engines.rsa_private(selftest.key_of(2048), "multibuffer")


@pytest.mark.usefixtures("fresh_choice")
@pytest.mark.parametrize("count", [1, 9])
def test_the_self_test_keeps_an_rsa_engine_out_that_gets_one_power_wrong(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    original = plain.PlainPublic.__call__

    def wrong(self: plain.PlainPublic, elements: bytes) -> bytes:
        good = original(self, elements)
        at = (count - 1) * 256 + 255
        return good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]

    monkeypatch.setattr(plain.PlainPublic, "__call__", wrong)
    assert "gmpy2" not in engines.available_rsa(2048)


@pytest.mark.usefixtures("fresh_choice")
def test_the_self_test_keeps_a_wrong_private_power_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain.PlainPrivate, "__call__", lambda self, elements: elements)
    assert "gmpy2" not in engines.available_rsa(2048)


@pytest.mark.usefixtures("fresh_choice")
@pytest.mark.parametrize("fault", ["identity", "takes small orders"])
def test_the_self_test_keeps_a_wrong_curve_engine_out(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    original = plain.PlainCurve.__call__

    def wrong(self: plain.PlainCurve, scalar: bytes, points: bytes) -> bytes:
        if fault == "identity":
            return points
        try:
            return original(self, scalar, points)
        except BadElement:
            return bytes(len(points))

    monkeypatch.setattr(plain.PlainCurve, "__call__", wrong)
    assert "cryptography" not in engines.available_curve()
    with pytest.raises(BadArgument, match="engine is 'cryptography'"):
        engines.curve("cryptography")


def test_the_secret_numbers_of_a_key_stay_out_of_its_repr() -> None:
    numbers = selftest.key_of(2048)
    shown = repr(numbers)
    assert str(numbers.n) in shown
    for secret in (numbers.p, numbers.q, numbers.d_p, numbers.d_q, numbers.q_inverse):
        assert str(secret) not in shown


def test_the_memory_of_a_key_is_wiped_when_the_engine_is_let_go() -> None:
    if multibuffer.why_not():
        pytest.skip(multibuffer.why_not())
    power = multibuffer.BatchedPrivate(selftest.key_of(2048))
    memory = power._key._memory
    assert any(memory.raw)
    del power
    gc.collect()
    assert not any(memory.raw)


def test_openssl_frees_its_key_with_the_engine() -> None:
    power = private("openssl", selftest.key_of(2048))
    assert isinstance(power, openssl.OpensslPrivate)
    finalizer = power._free
    del power
    gc.collect()
    assert not finalizer.alive


def test_a_process_ends_in_order_while_a_thread_computes() -> None:
    script = (
        "import threading, time\n"
        "from psi import engines\n"
        "from psi.engines import selftest\n"
        "key = selftest.key_of(2048)\n"
        "for name in engines.available_rsa(2048):\n"
        "    power = engines.rsa_private(key, name)\n"
        "    work = bytes(255) + b'\\2'\n"
        "    threading.Thread(target=power, args=(work * 4000,), daemon=True).start()\n"
        "time.sleep(0.05)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=30).returncode == 0


def test_the_choice_names_engines_that_exist() -> None:
    assert tuple(choice._RSA) == engines.RSA_ENGINES
    assert tuple(choice._CURVE) == engines.CURVE_ENGINES


def test_an_engine_that_loads_passes_its_self_test() -> None:
    if not multibuffer.why_not():
        assert "multibuffer" in engines.available_curve()
        assert all("multibuffer" in engines.available_rsa(bits) for bits in SIZES)
    try:
        openssl._library()
    except OSError:
        return
    assert all("openssl" in engines.available_rsa(bits) for bits in (*SIZES, 2560))


def test_the_batched_engine_takes_two_primes_of_half_the_length_only() -> None:
    def shaped(bits: int, p_bits: int) -> RsaNumbers:
        return RsaNumbers(1 << (bits - 1) | 1, 65537, 1 << (p_bits - 1), 1 << (bits - p_bits - 1), 0, 0, 0)

    assert multibuffer.takes_private(shaped(2048, 1024))
    assert not multibuffer.takes_private(shaped(2048, 1000))
    assert not multibuffer.takes_private(shaped(2560, 1280))
