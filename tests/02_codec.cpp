#include "support.hpp"

#include <set>

// The portable halves of what the processor may do by itself: compared with the rest below.
namespace coord {
inline namespace COORD_ABI {
namespace detail {
std::uint32_t crc32c_by_table(BytesView bytes, std::uint32_t crc);
std::uint64_t fold_by_halves(std::uint64_t a, std::uint64_t b);
}  // namespace detail
}  // namespace COORD_ABI
}  // namespace coord

using support::hex;
using support::unhex;

namespace {

std::string random_bytes(coord::Rng& rng, std::size_t size) {
    std::string bytes;
    for (std::size_t i = 0; i < size; i++) bytes.push_back(static_cast<char>(rng.next()));
    return bytes;
}

// A bit at a time, from the definition.
std::uint32_t crc32c_by_bits(const std::string& bytes, std::uint32_t seed) {
    std::uint32_t crc = ~seed;
    for (const char byte : bytes) {
        crc ^= static_cast<unsigned char>(byte);
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82F63B78u : 0u);
    }
    return ~crc;
}

}  // namespace

TEST_SUITE("02 codec") {

TEST_CASE("golden: bytes of every kind of field") {
    coord::Bytes out;
    coord::Writer writer{out};
    writer.u8(0xAB);
    writer.u32(0x01020304u);
    writer.u64(0x0102030405060708u);
    writer.i32(-2);
    writer.i64(-3);
    writer.zxid(coord::Zxid{1, 2});
    writer.bytes("key");
    writer.bytes("");
    writer.raw("end");
    CHECK(hex(out) ==
          "ab"
          "01020304"
          "0102030405060708"
          "fffffffe"
          "fffffffffffffffd"
          "0000010000000002"
          "000000036b6579"
          "00000000"
          "656e64");
    CHECK(writer.size() == out.size());
}

TEST_CASE("what is written is read") {
    coord::Bytes out{"before"};
    coord::Writer writer{out};
    writer.u8(255);
    writer.u32(UINT32_MAX);
    writer.u64(UINT64_MAX);
    writer.i32(INT32_MIN);
    writer.i64(INT64_MIN);
    writer.zxid(coord::Zxid{5, 6});
    writer.bytes(coord::BytesView{"a\0b", 3});
    writer.raw("xyz");
    coord::Reader reader{coord::BytesView{out}.substr(6)};
    CHECK(reader.u8() == 255);
    CHECK(reader.u32() == UINT32_MAX);
    CHECK(reader.u64() == UINT64_MAX);
    CHECK(reader.i32() == INT32_MIN);
    CHECK(reader.i64() == INT64_MIN);
    CHECK(reader.zxid() == coord::Zxid{5, 6});
    CHECK(reader.bytes(3) == coord::BytesView{"a\0b", 3});
    CHECK(reader.left() == 3);
    CHECK(!reader.done());
    CHECK(reader.raw(3) == "xyz");
    CHECK(reader.ok());
    CHECK(reader.done());
}

TEST_CASE("four bytes can be written over") {
    coord::Bytes out;
    coord::Writer writer{out};
    writer.u32(0);
    writer.u32(0);
    writer.u8(9);
    writer.patch_u32(0, 0xDEADBEEFu);
    writer.patch_u32(5, 0x01020304u);
    CHECK(hex(out) == "deadbeef0001020304");
}

TEST_CASE("a field that does not fit makes the reader bad for ever") {
    const std::string bytes = unhex("0102030405060708090a");
    coord::Reader reader{bytes};
    CHECK(reader.u64() == 0x0102030405060708u);
    CHECK(reader.u32() == 0);
    CHECK(!reader.ok());
    CHECK(reader.left() == 0);
    CHECK(reader.u8() == 0);
    CHECK(reader.u64() == 0);
    CHECK(reader.bytes(100).empty());
    CHECK(reader.raw(0).empty());
    CHECK(!reader.ok());
    CHECK(!reader.done());
}

TEST_CASE("every kind of field is bounded, at every size that is one too small") {
    const std::string bytes(8, '\x01');
    const auto short_of = [&](std::size_t need) {
        return coord::Reader{coord::BytesView{bytes}.substr(0, need - 1)};
    };
    coord::Reader one = short_of(1), four = short_of(4), eight = short_of(8), raw = short_of(5);
    CHECK(one.u8() == 0);
    CHECK(!one.ok());
    CHECK(four.u32() == 0);
    CHECK(!four.ok());
    CHECK(eight.u64() == 0);
    CHECK(!eight.ok());
    CHECK(raw.raw(5).empty());
    CHECK(!raw.ok());
}

TEST_CASE("a string is bounded by what is left and by the caller's limit") {
    const std::string four = unhex("0000000461626364");
    CHECK(coord::Reader{four}.bytes(4) == "abcd");
    coord::Reader limited{four};
    CHECK(limited.bytes(3).empty());
    CHECK(!limited.ok());
    const std::string lying = unhex("ffffffff61626364");
    coord::Reader liar{lying};
    CHECK(liar.bytes(SIZE_MAX).empty());
    CHECK(!liar.ok());
    const std::string cut = unhex("00000005616263");
    coord::Reader short_reader{cut};
    CHECK(short_reader.bytes(100).empty());
    CHECK(!short_reader.ok());
    coord::Reader headless{coord::BytesView{four}.substr(0, 3)};
    CHECK(headless.bytes(100).empty());
    CHECK(!headless.ok());
}

TEST_CASE("the views of a reader are into its bytes") {
    const std::string bytes = unhex("0000000461626364");
    coord::Reader reader{bytes};
    CHECK(reader.bytes(4).data() == bytes.data() + 4);
}

TEST_CASE("an empty reader is done, and bad after the first field") {
    coord::Reader reader{{}};
    CHECK(reader.ok());
    CHECK(reader.done());
    CHECK(reader.raw(0).empty());
    CHECK(reader.done());
    CHECK(reader.u8() == 0);
    CHECK(!reader.done());
}

// RFC 3720 B.4, and the check value of the catalogue of CRCs.
TEST_CASE("golden: CRC32C as iSCSI has it") {
    std::string rising, falling;
    for (int i = 0; i < 32; i++) rising.push_back(static_cast<char>(i));
    for (int i = 31; i >= 0; i--) falling.push_back(static_cast<char>(i));
    CHECK(coord::crc32c(std::string(32, '\0')) == 0x8A9136AAu);
    CHECK(coord::crc32c(std::string(32, '\xFF')) == 0x62A8AB43u);
    CHECK(coord::crc32c(rising) == 0x46DD794Eu);
    CHECK(coord::crc32c(falling) == 0x113FDB5Cu);
    CHECK(coord::crc32c("123456789") == 0xE3069283u);
    CHECK(coord::crc32c("") == 0);
    CHECK(coord::crc32c("a") == 0xC1D04330u);
    const std::string read_command = unhex(
        "01c00000000000000000000000000000"
        "14000000000004000000001400000018"
        "28000000000000000200000000000000");
    CHECK(coord::crc32c(read_command) == 0xD9963A56u);
}

TEST_CASE("the processor's CRC, the table's and the definition's are one") {
    coord::Rng rng{support::seed_or(5)};
    for (std::size_t size = 0; size < 200; size++) {
        const std::string bytes = random_bytes(rng, size);
        const auto seed = static_cast<std::uint32_t>(rng.next());
        CAPTURE(size);
        REQUIRE(coord::crc32c(bytes, seed) == crc32c_by_bits(bytes, seed));
        REQUIRE(~coord::detail::crc32c_by_table(bytes, ~seed) == crc32c_by_bits(bytes, seed));
    }
    const std::string longer = random_bytes(rng, 10000);
    CHECK(coord::crc32c(longer) == crc32c_by_bits(longer, 0));
    for (std::size_t offset = 0; offset < 16; offset++) {
        const coord::BytesView view = coord::BytesView{longer}.substr(offset, 1000);
        REQUIRE(coord::crc32c(view) == crc32c_by_bits(std::string{view}, 0));
    }
}

TEST_CASE("a CRC goes on where another ended") {
    const std::string whole = "the quick brown fox jumps over the lazy dog";
    for (std::size_t cut = 0; cut <= whole.size(); cut++) {
        const std::uint32_t first = coord::crc32c(coord::BytesView{whole}.substr(0, cut));
        REQUIRE(coord::crc32c(coord::BytesView{whole}.substr(cut), first) == coord::crc32c(whole));
    }
}

// Red only where the hash was changed: digests then differ between releases, which must not happen
// within one format version.
TEST_CASE("golden: hash64") {
    struct Row {
        std::string bytes;
        std::uint64_t seed_0;
        std::uint64_t other_seed;
    };
    std::string hundred;
    for (int i = 0; i < 100; i++) hundred.push_back(static_cast<char>(i));
    const Row rows[] = {
        {"", 0xe5374b723ae9da05u, 0xacf1d9575c8c0414u},
        {"a", 0x09123c0a182800cdu, 0x81690941b61042b4u},
        {"ab", 0x57fcbc8302ad27fcu, 0x2b2a74ca85cb1e41u},
        {"abc", 0xb95c6153d3cee462u, 0x12b7e8a2fb7332eeu},
        {"12345678", 0x9ddf98c3fae896f0u, 0xd5d80c7188b29449u},
        {"/zookeeper", 0x23ec8b219844db59u, 0x153b62f317f4721cu},
        {"0123456789abcdef", 0x8c693666e9886f64u, 0x1b5a3cc69f5eac53u},
        {"0123456789abcdefg", 0x805b6dd79464f0e5u, 0xd4cb439f9f2447a7u},
        {hundred, 0x61aa240aca780a98u, 0xbfc56f4bf31c4170u},
    };
    for (const Row& row : rows) {
        CAPTURE(row.bytes);
        CHECK(coord::hash64(row.bytes, 0) == row.seed_0);
        CHECK(coord::hash64(row.bytes, 0x123456789abcdef) == row.other_seed);
    }
}

TEST_CASE("golden: mix64") {
    CHECK(coord::mix64(0, 0) == 0xcebabd58312e8fbbu);
    CHECK(coord::mix64(0, 1) == 0x8e88c7b492c308f9u);
    CHECK(coord::mix64(1, 0) == 0xf055fbe88de88285u);
    CHECK(coord::mix64(UINT64_MAX, UINT64_MAX) == 0xfada865ea4199a90u);
    CHECK(coord::mix64(0xbf7158809cf4f3c7u, 0x62e7160f38b4da56u) == 0xa784d9045190cfefu);
}

TEST_CASE("the wide multiplication in halves is that in one") {
    CHECK(coord::detail::fold_by_halves(0, 0) == 0);
    CHECK(coord::detail::fold_by_halves(UINT64_MAX, UINT64_MAX) == ((UINT64_MAX - 1) ^ 1));
    CHECK(coord::detail::fold_by_halves(UINT64_MAX, 1) == UINT64_MAX);
    CHECK(coord::detail::fold_by_halves(std::uint64_t{1} << 32, std::uint64_t{1} << 32) == 1);
    CHECK(coord::detail::fold_by_halves(0x123456789u, 0x987654321u) == 0xd77d742cce1833a3u);
#ifdef __SIZEOF_INT128__
    __extension__ using Wide = unsigned __int128;
    coord::Rng rng{support::seed_or(6)};
    for (int i = 0; i < 10000; i++) {
        const std::uint64_t a = rng.next() >> rng.below(64), b = rng.next() >> rng.below(64);
        const Wide product = static_cast<Wide>(a) * b;
        const auto folded = static_cast<std::uint64_t>(product >> 64) ^
                            static_cast<std::uint64_t>(product);
        REQUIRE(coord::detail::fold_by_halves(a, b) == folded);
    }
#endif
}

TEST_CASE("hash64 looks at every bit, at every size") {
    coord::Rng rng{support::seed_or(7)};
    for (std::size_t size = 1; size <= 70; size++) {
        std::string bytes = random_bytes(rng, size);
        const std::uint64_t hash = coord::hash64(bytes, 1);
        for (std::size_t bit = 0; bit < size * 8; bit++) {
            const auto flip = static_cast<char>(1u << (bit % 8));
            bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ flip);
            CAPTURE(size);
            REQUIRE(coord::hash64(bytes, 1) != hash);
            bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ flip);
        }
        REQUIRE(coord::hash64(bytes, 1) == hash);
        REQUIRE(coord::hash64(bytes, 2) != hash);
    }
}

TEST_CASE("hash64 tells sizes apart, of zeros too") {
    std::set<std::uint64_t> hashes;
    for (std::size_t size = 0; size < 300; size++) {
        hashes.insert(coord::hash64(std::string(size, '\0'), 0));
    }
    CHECK(hashes.size() == 300);
}

TEST_CASE("hash64 spreads like chance: paths over buckets, and a bit that turns half of the bits") {
    const std::size_t buckets = 256, paths = 64 * buckets;
    std::vector<int> high(buckets), low(buckets);
    std::set<std::uint64_t> hashes;
    for (std::size_t i = 0; i < paths; i++) {
        const std::uint64_t hash = coord::hash64("/service/node-" + std::to_string(i), 3);
        high[hash >> 56] += 1, low[hash & 255] += 1;
        hashes.insert(hash);
    }
    CHECK(hashes.size() == paths);
    for (std::size_t i = 0; i < buckets; i++) {
        CHECK(high[i] > 24);
        CHECK(high[i] < 116);
        CHECK(low[i] > 24);
        CHECK(low[i] < 116);
    }
    int turned = 0;
    for (std::uint64_t i = 0; i < 1000; i++) {
        std::uint64_t difference = coord::mix64(i, 5) ^ coord::mix64(i ^ 1, 5);
        for (; difference != 0; difference &= difference - 1) turned++;
    }
    CHECK(turned > 30000);
    CHECK(turned < 34000);
}

TEST_CASE("a word that cancels a key does not wipe out what came before") {
    std::string cancelling;
    for (int i = 0; i < 8; i++) {
        cancelling.push_back(static_cast<char>(0x13198A2E03707344u >> (8 * i)));
    }
    const std::string rest(24, 'r');
    std::set<std::uint64_t> hashes;
    for (char first = 'a'; first <= 'z'; first++) {
        hashes.insert(coord::hash64(std::string(16, first) + cancelling + rest, 0));
    }
    CHECK(hashes.size() == 26);
}

TEST_CASE("mix64 tells its operands apart") {
    std::set<std::uint64_t> seen;
    for (std::uint64_t a = 0; a < 50; a++) {
        for (std::uint64_t b = 0; b < 50; b++) seen.insert(coord::mix64(a, b));
    }
    CHECK(seen.size() == 2500);
}

}  // TEST_SUITE
