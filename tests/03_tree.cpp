#include "support.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <vector>

using coord::any_version;
using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::NodeKind;
using coord::NodeLife;
using coord::SessionId;
using coord::Stat;
using coord::Tree;
using coord::Zxid;
using support::hex;
using support::unhex;

namespace {

// Prepares and creates, as the machine does. RETURNS the error; the final path in `made`.
Errc create(Tree& tree, BytesView path, CreateMode mode, BytesView data, std::uint64_t zxid,
            std::int64_t time_ms, SessionId owner, Bytes& made, std::int64_t ttl_ms = 0) {
    const Errc error = tree.prepare_create(path, mode, made);
    if (error != Errc::ok) return error;
    tree.create(made, data, NodeLife(mode, owner, ttl_ms), Zxid{zxid}, time_ms);
    return Errc::ok;
}

Errc create(Tree& tree, BytesView path, CreateMode mode = CreateMode::persistent) {
    Bytes made;
    return create(tree, path, mode, "", 1, 1, SessionId{5}, made);
}

Bytes create_sequential(Tree& tree, BytesView path) {
    Bytes made;
    REQUIRE(create(tree, path, CreateMode::persistent_sequential, "", 1, 1, {}, made) == Errc::ok);
    return made;
}

// For tests where only the error counts.
Errc prepare(const Tree& tree, BytesView path, CreateMode mode = CreateMode::persistent) {
    Bytes made;
    return tree.prepare_create(path, mode, made);
}

// At zxid and time 1.
void create_with_ttl(Tree& tree, BytesView path, std::int64_t ttl_ms) {
    Bytes made;
    const CreateMode mode = CreateMode::persistent_with_ttl;
    REQUIRE(create(tree, path, mode, "", 1, 1, {}, made, ttl_ms) == Errc::ok);
}

Errc remove(Tree& tree, BytesView path, std::int32_t version = any_version) {
    return tree.remove(path, version, Zxid{9});
}

Errc set(Tree& tree, BytesView path, std::int32_t version = any_version) {
    return tree.set(path, "new", version, Zxid{9}, 9);
}

Stat stat(const Tree& tree, BytesView path) {
    const auto found = tree.find(path);
    REQUIRE(found);
    return found->stat;
}

Bytes data(const Tree& tree, BytesView path) {
    const auto found = tree.find(path);
    REQUIRE(found);
    return Bytes{found->data};
}

std::vector<Bytes> children(const Tree& tree, BytesView path, BytesView after = "",
                            std::size_t limit = SIZE_MAX) {
    std::vector<Bytes> names;
    REQUIRE(tree.children(path, after, limit, names) == Errc::ok);
    return names;
}

// All that is due, looked for in slices of a few.
std::vector<Bytes> due(const Tree& tree, std::int64_t time_ms, std::uint32_t slice = 3) {
    std::vector<Bytes> paths;
    std::uint64_t place = 0;
    do {
        std::uint32_t looks = slice;
        while (const auto node = tree.next_due(place, looks, time_ms)) {
            paths.emplace_back(node->path);
        }
        REQUIRE(looks <= slice);
    } while (place != 0);
    std::sort(paths.begin(), paths.end());
    return paths;
}

// At once, appended to what is there.
Bytes save(Tree& tree, Bytes bytes = "") {
    tree.begin_save();
    while (!tree.save_slice(SIZE_MAX / 4, bytes)) {
    }
    return bytes;
}

// What two trees with the same nodes have in common, wherever the nodes are.
std::vector<Bytes> sorted(Tree& tree) { return support::sorted_records(save(tree)); }

// Takes the records apart as chapter 4 does. After an error the tree is fresh.
Errc load(Tree& tree, BytesView bytes, const coord::Limits& limits = {}) {
    coord::Reader in{bytes};
    bool sound = true;
    tree.begin_load();
    while (sound && in.ok() && !in.done()) {
        sound = in.u8() == 3;
        const BytesView record = in.bytes(in.left());
        sound = sound && in.ok() && tree.load_node(record, limits);
    }
    const Errc error = sound && in.ok() ? tree.end_load() : Errc::corrupt;
    if (error != Errc::ok) tree.reset();
    return error;
}

// The fields that all records have at their end, where there is no ttl, in bytes before the end.
constexpr std::size_t children_field = 5;
constexpr std::size_t creations_field = 13;
constexpr std::size_t version_field = 21;
constexpr std::size_t owner_field = 29;

// RETURNS where the field is in the saved tree's record of the path.
std::size_t place_of(const Bytes& bytes, BytesView path, std::size_t field) {
    coord::Reader in{bytes};
    while (in.u8() == 3) {
        coord::Reader record{in.bytes(in.left())};
        if (record.bytes(record.left()) == path) return bytes.size() - in.left() - field;
    }
    FAIL("there is no such record");
    return 0;
}

void patch(Bytes& bytes, BytesView path, std::size_t field, std::uint32_t value) {
    coord::Writer{bytes}.patch_u32(place_of(bytes, path, field), value);
}

void patch_u64(Bytes& bytes, BytesView path, std::size_t field, std::uint64_t value) {
    patch(bytes, path, field, static_cast<std::uint32_t>(value >> 32));
    patch(bytes, path, field - 4, static_cast<std::uint32_t>(value));
}

// The tree of the golden tests: a node with data, an ephemeral one below it, and the built-in ones.
void make_golden(Tree& tree) {
    Bytes made;
    const std::uint64_t epoch = std::uint64_t{1} << 40;
    REQUIRE(create(tree, "/a", CreateMode::persistent, "", epoch + 1, 1000, {}, made) == Errc::ok);
    REQUIRE(tree.set("/a", "hello", 0, Zxid{epoch + 2}, 2000) == Errc::ok);
    REQUIRE(create(tree, "/a/b-", CreateMode::ephemeral_sequential, BytesView{"\0\xff", 2},
                   epoch + 3, 3000, SessionId{7}, made) == Errc::ok);
    REQUIRE(made == "/a/b-0000000000");
}

// And one with a container that has lost its child, and two nodes with a ttl.
void make_golden_kinds(Tree& tree) {
    Bytes made;
    const auto numbered = CreateMode::persistent_sequential_with_ttl;
    const auto ttl = CreateMode::persistent_with_ttl;
    make_golden(tree);
    REQUIRE(create(tree, "/c", CreateMode::container, "c", 4, 4000, {}, made) == Errc::ok);
    REQUIRE(create(tree, "/c/x", CreateMode::persistent, "", 5, 5000, {}, made) == Errc::ok);
    REQUIRE(tree.remove("/c/x", any_version, Zxid{6}) == Errc::ok);
    REQUIRE(create(tree, "/t", ttl, "t", 7, 7000, {}, made, 0x0102030405) == Errc::ok);
    REQUIRE(create(tree, "/t/", numbered, "", 8, 8000, {}, made, 1) == Errc::ok);
    REQUIRE(made == "/t/0000000000");
}

const char golden_kinds[] =
    // /c
    "03" "00000050"
    "00000002" "2f63" "00000001" "63"
    "0000000000000004" "0000000000000004" "0000000000000006"
    "0000000000000fa0" "0000000000000fa0" "0000000000000000" "00000000" "00000000"
    "0000000000000001" "00000000" "02"
    // /t
    "03" "00000058"
    "00000002" "2f74" "00000001" "74"
    "0000000000000007" "0000000000000007" "0000000000000008"
    "0000000000001b58" "0000000000001b58" "0000000000000000" "00000000" "00000000"
    "0000000000000001" "00000001" "03" "0000000102030405"
    // /t/0000000000
    "03" "00000062"
    "0000000d" "2f742f30303030303030303030" "00000000"
    "0000000000000008" "0000000000000008" "0000000000000008"
    "0000000000001f40" "0000000000001f40" "0000000000000000" "00000000" "00000000"
    "0000000000000000" "00000000" "03" "0000000000000001";

const char golden_tree[] =
    // the root: 1 creation, 2 children
    "03" "0000004e"
    "00000001" "2f" "00000000" "0000000000000000" "0000000000000000" "0000010000000001"
    "0000000000000000" "0000000000000000" "0000000000000000" "00000000" "00000000"
    "0000000000000001" "00000002" "00"
    // /zookeeper
    "03" "00000057"
    "0000000a" "2f7a6f6f6b6565706572" "00000000"
    "0000000000000000" "0000000000000000" "0000000000000000"
    "0000000000000000" "0000000000000000" "0000000000000000" "00000000" "00000000"
    "0000000000000000" "00000002" "00"
    // /zookeeper/config
    "03" "00000079"
    "00000011" "2f7a6f6f6b65657065722f636f6e666967" "00000000"
    "0000000000000000" "0000000000000000" "0000000000000000"
    "0000000000000000" "0000000000000000" "0000000000000000" "00000000" "ffffffff"
    "0000000000000000" "00000000" "04"
    "00000017" "00000001" "00000005" "776f726c64" "00000006" "616e796f6e65"
    // /zookeeper/quota
    "03" "0000005d"
    "00000010" "2f7a6f6f6b65657065722f71756f7461" "00000000"
    "0000000000000000" "0000000000000000" "0000000000000000"
    "0000000000000000" "0000000000000000" "0000000000000000" "00000000" "00000000"
    "0000000000000000" "00000000" "00"
    // /a
    "03" "00000054"
    "00000002" "2f61" "00000005" "68656c6c6f"
    "0000010000000001" "0000010000000002" "0000010000000003"
    "00000000000003e8" "00000000000007d0" "0000000000000000" "00000001" "00000000"
    "0000000000000001" "00000001" "00"
    // /a/b-0000000000
    "03" "0000005e"
    "0000000f" "2f612f622d30303030303030303030" "00000002" "00ff"
    "0000010000000003" "0000010000000003" "0000010000000003"
    "0000000000000bb8" "0000000000000bb8" "0000000000000007" "00000000" "00000000"
    "0000000000000000" "00000000" "01";

// A saved tree, written by hand: for what save itself would never write.
struct HandWritten {
    Bytes bytes;

    HandWritten& node(BytesView path, std::uint32_t children, std::uint64_t creations,
                      std::uint64_t owner = 0) {
        return node(path, children, creations, owner, owner != 0 ? 1 : 0, {});
    }
    HandWritten& node(BytesView path, std::uint32_t children, std::uint64_t creations,
                      std::uint64_t owner, int kind, std::optional<std::int64_t> ttl_ms) {
        Bytes record;
        coord::Writer writer{record};
        writer.bytes(path);
        writer.bytes("");
        for (int i = 0; i < 5; i++) writer.u64(0);
        writer.u64(owner);
        writer.u64(0);  // both versions
        writer.u64(creations);
        writer.u32(children);
        writer.u8(static_cast<std::uint8_t>(kind));
        if (ttl_ms) writer.i64(*ttl_ms);
        coord::Writer out{bytes};
        out.u8(3), out.bytes(record);
        return *this;
    }
    HandWritten& built_in() {
        return node("/zookeeper", 2, 0).node("/zookeeper/config", 0, 0)
            .node("/zookeeper/quota", 0, 0);
    }
    Errc load() const {
        Tree tree;
        const Errc error = ::load(tree, bytes);
        tree.audit();
        return error;
    }
};

// UTF-8 as the standard writes it, surrogates included.
Bytes utf8(std::uint32_t code) {
    Bytes out;
    const auto put = [&out](std::uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xC0 | code >> 6), put(0x80 | (code & 63));
    } else if (code < 0x10000) {
        put(0xE0 | code >> 12), put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
    } else {
        put(0xF0 | code >> 18), put(0x80 | (code >> 12 & 63));
        put(0x80 | (code >> 6 & 63)), put(0x80 | (code & 63));
    }
    return out;
}

}  // namespace

TEST_SUITE("03 tree") {

// ---- Paths

TEST_CASE("paths: each row of the rules") {
    const char* const valid[] = {
        "/", "/a", "/a/b", "/a/b/c", "/.x", "/..x", "/x.", "/x..", "/...", "/a/.../b", "/ ", "/a b",
        "/~", "/!\"#$%&'()*+,-:;<=>?@[\\]^_`{|}", "/0000000000", "/-2147483648",
    };
    for (const char* const path : valid) {
        CAPTURE(path);
        CHECK(coord::is_valid_path(path));
    }
    const char* const invalid[] = {
        "", "a", "a/b", " /a", "/a/", "/a/b/", "//", "//a", "/a//b", "/a/b//", "///", "/.", "/..",
        "/./a", "/../a", "/a/.", "/a/..", "/a/./b", "/a/../b",
    };
    for (const char* const path : invalid) {
        CAPTURE(path);
        CHECK(!coord::is_valid_path(path));
    }
}

TEST_CASE("paths: every character of Unicode, at the front, in the middle and at the end") {
    for (std::uint32_t code = 0; code <= 0x10FFFF; code += code < 0x10000 ? 1 : 0x101) {
        const bool good = code != '/' && code >= 0x20 && !(code >= 0x7F && code <= 0x9F) &&
                          !(code >= 0xD800 && code <= 0xF8FF) && code < 0xFFF0;
        const Bytes character = utf8(code);
        const bool front = coord::is_valid_path("/" + character + "a/b");
        const bool middle = coord::is_valid_path("/a" + character + "b");
        const bool back = coord::is_valid_path("/a/b" + character);
        if (code == '/') continue;  // the rows above
        const bool agree = code == '.' || (front == good && middle == good && back == good);
        CAPTURE(code);
        REQUIRE(agree);
    }
}

TEST_CASE("paths: what is not UTF-8 is not a path") {
    const char* const broken[] = {
        "/\x80",          "/\xBF",         "/a\xC3",        "/\xC3/a",      "/\xC3\xC3",
        "/\xC0\xAF",      "/\xC1\xBF",     "/\xE2\x82",     "/\xE2\x82/a",  "/\xE2\x28\xA1",
        "/\xE0\x80\xAF",  "/\xE0\x9F\xBF", "/\xED\xA0\x80", "/\xED\xBF\xBF", "/\xF0\x9F\x98\x80",
        "/\xF8\x88\x80\x80\x80", "/\xFE",  "/\xFF",         "/\xEF\xBF\xBE", "/\xEF\xBF\xBD",
    };
    for (const char* const path : broken) {
        CAPTURE(hex(path));
        CHECK(!coord::is_valid_path(path));
    }
    CHECK(coord::is_valid_path("/\xC2\xA0"));
    CHECK(coord::is_valid_path("/\xDF\xBF"));
    CHECK(coord::is_valid_path("/\xE0\xA0\x80"));
    CHECK(coord::is_valid_path("/\xED\x9F\xBF"));
    CHECK(coord::is_valid_path("/\xEF\xA4\x80"));
    CHECK(coord::is_valid_path("/\xEF\xBF\xAF"));
    CHECK(coord::is_valid_path("/\xE6\xBC\xA2\xE5\xAD\x97"));
}

TEST_CASE("paths: NUL is nowhere allowed") {
    CHECK(!coord::is_valid_path(BytesView{"/\0", 2}));
    CHECK(!coord::is_valid_path(BytesView{"/a\0b", 4}));
    CHECK(!coord::is_valid_path(BytesView{"\0/a", 3}));
}

TEST_CASE("paths: taken apart") {
    CHECK(coord::parent_path("/a/b") == "/a");
    CHECK(coord::parent_path("/a") == "/");
    CHECK(coord::parent_path("/") == "/");
    CHECK(coord::parent_path("/a/b/c") == "/a/b");
    CHECK(coord::node_name("/a/b") == "b");
    CHECK(coord::node_name("/a") == "a");
    CHECK(coord::node_name("/") == "");
    CHECK(coord::node_name("a") == "a");
}

TEST_CASE("paths: the number of a sequential node") {
    CHECK(coord::sequence_of("/q/n-0000000042") == 42);
    CHECK(coord::sequence_of("n-0000000000") == 0);
    CHECK(coord::sequence_of("0000000007") == 7);
    CHECK(coord::sequence_of("/q/0000000007") == 7);
    CHECK(coord::sequence_of("n-12345678901") == 12345678901);
    CHECK(coord::sequence_of("n-9223372036854775807") == INT64_MAX);
    CHECK(coord::sequence_of("n-9223372036854775808") == std::nullopt);
    CHECK(coord::sequence_of("n-99999999999999999999") == std::nullopt);
    CHECK(coord::sequence_of("n-000000000") == std::nullopt);
    CHECK(coord::sequence_of("n-0000000042x") == std::nullopt);
    CHECK(coord::sequence_of("/0000000042/x") == std::nullopt);
    CHECK(coord::sequence_of("") == std::nullopt);
    CHECK(coord::sequence_of("/") == std::nullopt);
}

TEST_CASE("modes: ZooKeeper's numbers, and what each is") {
    const bool ephemeral[] = {false, true, false, true, false, false, false};
    const bool sequential[] = {false, false, true, true, false, false, true};
    const bool with_ttl[] = {false, false, false, false, false, true, true};
    for (int i = 0; i < 7; i++) {
        CAPTURE(i);
        const auto mode = static_cast<CreateMode>(i);
        CHECK(coord::is_ephemeral(mode) == ephemeral[i]);
        CHECK(coord::is_sequential(mode) == sequential[i]);
        CHECK(coord::has_ttl(mode) == with_ttl[i]);
        const NodeLife life(mode, SessionId{5}, 6);
        CHECK((life.kind == NodeKind::ephemeral) == ephemeral[i]);
        CHECK(life.owner == SessionId{ephemeral[i] ? 5u : 0u});
        CHECK((life.kind == NodeKind::ttl) == with_ttl[i]);
        CHECK(life.ttl_ms == (with_ttl[i] ? 6 : 0));
        CHECK((life.kind == NodeKind::container) == (mode == CreateMode::container));
    }
}

// ---- A fresh tree

TEST_CASE("a fresh tree is ZooKeeper's") {
    const Tree tree;
    tree.audit();
    CHECK(tree.size() == 4);
    CHECK(children(tree, "/") == std::vector<Bytes>{"zookeeper"});
    CHECK(children(tree, "/zookeeper") == std::vector<Bytes>{"config", "quota"});
    CHECK(children(tree, "/zookeeper/config").empty());
    for (const char* const path : {"/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"}) {
        CAPTURE(path);
        const Stat fresh = stat(tree, path);
        CHECK(fresh.czxid == Zxid{});
        CHECK(fresh.mzxid == Zxid{});
        CHECK(fresh.pzxid == Zxid{});
        CHECK(fresh.ctime_ms == 0);
        CHECK(fresh.mtime_ms == 0);
        CHECK(fresh.version == 0);
        CHECK(fresh.ephemeral_owner == SessionId{});
        CHECK(fresh.data_length == 0);
        CHECK(data(tree, path).empty());
    }
    // What ZooKeeper 3.8 shows: its constructor adds children without counting creations, and
    // sets the list of config with the version -1.
    CHECK(stat(tree, "/").cversion == -1);
    CHECK(stat(tree, "/zookeeper").cversion == -2);
    CHECK(stat(tree, "/zookeeper/config").cversion == 0);
    CHECK(stat(tree, "/").num_children == 1);
    CHECK(stat(tree, "/zookeeper").num_children == 2);
    CHECK(stat(tree, "/zookeeper/config").aversion == -1);
    CHECK(stat(tree, "/zookeeper/quota").aversion == 0);
}

TEST_CASE("the root has two names, and no other path is its alias") {
    Tree tree;
    CHECK(tree.find("")->path == "/");
    CHECK(tree.find("/")->path == "/");
    CHECK(tree.contains(""));
    CHECK(children(tree, "") == children(tree, "/"));
    for (const char* const path : {"//", "a", "zookeeper", "/zookeeper/", "//zookeeper", "/zoo"}) {
        CAPTURE(path);
        CHECK(!tree.contains(path));
        CHECK(!tree.find(path));
        std::vector<Bytes> names;
        CHECK(tree.children(path, "", 10, names) == Errc::no_node);
        CHECK(names.empty());
    }
}

TEST_CASE("a look shows the node's own path") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(create(tree, "/a/b") == Errc::ok);
    CHECK(tree.find("/a")->path == "/a");
    CHECK(tree.find("/a/b")->path == "/a/b");
    CHECK(!tree.contains("/b"));
    CHECK(!tree.contains("/a/b/c"));
}

// ---- Create

TEST_CASE("create: the order of the errors") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(create(tree, "/e", CreateMode::ephemeral) == Errc::ok);
    const auto mode = [](std::int32_t flags) { return static_cast<CreateMode>(flags); };

    // Flags first, whatever the path is.
    CHECK(prepare(tree, "/x", mode(-1)) == Errc::bad_arguments);
    CHECK(prepare(tree, "/x", mode(7)) == Errc::bad_arguments);
    CHECK(prepare(tree, "/none/x", mode(8)) == Errc::bad_arguments);
    CHECK(prepare(tree, "/a", mode(INT32_MAX)) == Errc::bad_arguments);
    // Then a '/' and no NUL, before the parent.
    CHECK(prepare(tree, "") == Errc::bad_arguments);
    CHECK(prepare(tree, "x") == Errc::bad_arguments);
    CHECK(prepare(tree, BytesView{"/none/\0", 7}) == Errc::bad_arguments);
    CHECK(prepare(tree, BytesView{"/a\0", 3}) == Errc::bad_arguments);
    // Then the parent, before the rest of the path.
    CHECK(prepare(tree, "/none/x") == Errc::no_node);
    CHECK(prepare(tree, "/none/..") == Errc::no_node);
    CHECK(prepare(tree, "/none/") == Errc::no_node);
    CHECK(prepare(tree, "x/y") == Errc::no_node);
    CHECK(prepare(tree, "/a//x") == Errc::no_node);
    CHECK(prepare(tree, "/a/./x") == Errc::no_node);
    CHECK(prepare(tree, "///") == Errc::no_node);
    // Then the whole path, before what is there.
    CHECK(prepare(tree, "/a/") == Errc::bad_arguments);
    CHECK(prepare(tree, "/a/.") == Errc::bad_arguments);
    CHECK(prepare(tree, "/a/..") == Errc::bad_arguments);
    CHECK(prepare(tree, "/..") == Errc::bad_arguments);
    CHECK(prepare(tree, "//") == Errc::bad_arguments);
    CHECK(prepare(tree, "//x") == Errc::bad_arguments);
    CHECK(prepare(tree, "//a") == Errc::bad_arguments);
    CHECK(prepare(tree, "/a/\x01") == Errc::bad_arguments);
    CHECK(prepare(tree, "/a/\xFF") == Errc::bad_arguments);
    CHECK(prepare(tree, "/e/..") == Errc::bad_arguments);
    // Then the node itself, before an ephemeral parent.
    CHECK(prepare(tree, "/") == Errc::node_exists);
    CHECK(prepare(tree, "/a") == Errc::node_exists);
    CHECK(prepare(tree, "/e") == Errc::node_exists);
    CHECK(prepare(tree, "/zookeeper") == Errc::node_exists);
    CHECK(prepare(tree, "/e", CreateMode::ephemeral) == Errc::node_exists);
    // Last, the parent's kind.
    CHECK(prepare(tree, "/e/x") == Errc::no_children_for_ephemerals);
    CHECK(prepare(tree, "/e/x", CreateMode::ephemeral) == Errc::no_children_for_ephemerals);
    CHECK(prepare(tree, "/e/", CreateMode::persistent_sequential) ==
          Errc::no_children_for_ephemerals);
    CHECK(prepare(tree, "/a/x") == Errc::ok);
    CHECK(prepare(tree, "/zookeeper/x") == Errc::ok);
    CHECK(prepare(tree, "/zookeeper/quota/x") == Errc::ok);
    tree.audit();
}

TEST_CASE("create: a sequential path may end in a slash, or be nothing but one") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    CHECK(create_sequential(tree, "/a/") == "/a/0000000000");
    CHECK(create_sequential(tree, "/a/n-") == "/a/n-0000000001");
    CHECK(create_sequential(tree, "/") == "/0000000001");
    CHECK(create_sequential(tree, "/x") == "/x0000000002");
    // What would be "." or ".." by itself is not with a number behind it.
    CHECK(create_sequential(tree, "/a/.") == "/a/.0000000002");
    CHECK(create_sequential(tree, "/a/..") == "/a/..0000000003");
    CHECK(prepare(tree, "//", CreateMode::persistent_sequential) == Errc::bad_arguments);
    CHECK(prepare(tree, "/a//", CreateMode::persistent_sequential) == Errc::no_node);
    CHECK(prepare(tree, "/a/\x7F", CreateMode::persistent_sequential) == Errc::bad_arguments);
    CHECK(prepare(tree, "x", CreateMode::persistent_sequential) == Errc::bad_arguments);
    tree.audit();
}

TEST_CASE("create: preparing changes nothing and keeps the memory of its output") {
    Tree tree;
    const std::uint64_t digest = tree.digest();
    Bytes made(1000, 'x');
    const char* const memory = made.data();
    for (int i = 0; i < 3; i++) {
        CHECK(tree.prepare_create("/a/", CreateMode::persistent_sequential, made) == Errc::no_node);
        CHECK(tree.prepare_create("/q-", CreateMode::persistent_sequential, made) == Errc::ok);
        CHECK(made == "/q-0000000000");
        CHECK(tree.prepare_create("/q", CreateMode::ephemeral, made) == Errc::ok);
        CHECK(made == "/q");
        CHECK(made.data() == memory);
    }
    CHECK(tree.digest() == digest);
    CHECK(tree.size() == 4);
}

TEST_CASE("create: the output may be the input") {
    Tree tree;
    Bytes path = "/some-rather-long-prefix-that-is-not-small-";
    REQUIRE(tree.prepare_create(path, CreateMode::persistent_sequential, path) == Errc::ok);
    CHECK(path == "/some-rather-long-prefix-that-is-not-small-0000000000");
}

// ---- Sequence numbers

TEST_CASE("sequence: the number of creations below the parent, whatever they were") {
    Tree tree;
    REQUIRE(create(tree, "/q") == Errc::ok);
    CHECK(create_sequential(tree, "/q/a-") == "/q/a-0000000000");
    CHECK(create_sequential(tree, "/q/b-") == "/q/b-0000000001");
    REQUIRE(create(tree, "/q/plain") == Errc::ok);
    CHECK(create_sequential(tree, "/q/a-") == "/q/a-0000000003");
    REQUIRE(create(tree, "/q/e", CreateMode::ephemeral) == Errc::ok);
    Bytes made;
    REQUIRE(tree.prepare_create("/q/e-", CreateMode::ephemeral_sequential, made) == Errc::ok);
    CHECK(made == "/q/e-0000000005");
}

TEST_CASE("ZooKeeper B10: sequence: deletes and failures take nothing and give nothing back") {
    Tree tree;
    REQUIRE(create(tree, "/q") == Errc::ok);
    CHECK(create_sequential(tree, "/q/a-") == "/q/a-0000000000");
    REQUIRE(remove(tree, "/q/a-0000000000") == Errc::ok);
    CHECK(create(tree, "/q/..") == Errc::bad_arguments);
    CHECK(create_sequential(tree, "/q/a-") == "/q/a-0000000001");
    CHECK(create(tree, "/q/a-0000000001") == Errc::node_exists);
    CHECK(create_sequential(tree, "/q/a-") == "/q/a-0000000002");
    // A plain node may stand where the next number would go.
    REQUIRE(create(tree, "/q/a-0000000004") == Errc::ok);
    CHECK(prepare(tree, "/q/a-", CreateMode::persistent_sequential) == Errc::node_exists);
}

TEST_CASE("sequence: grandchildren and sets count for nothing") {
    Tree tree;
    REQUIRE(create(tree, "/q") == Errc::ok);
    REQUIRE(create(tree, "/q/x") == Errc::ok);
    REQUIRE(create(tree, "/q/x/y") == Errc::ok);
    REQUIRE(set(tree, "/q") == Errc::ok);
    CHECK(create_sequential(tree, "/q/") == "/q/0000000001");
}

TEST_CASE("sequence: a parent made again starts again") {
    Tree tree;
    REQUIRE(create(tree, "/q") == Errc::ok);
    REQUIRE(remove(tree, create_sequential(tree, "/q/")) == Errc::ok);
    REQUIRE(remove(tree, "/q") == Errc::ok);
    REQUIRE(create(tree, "/q") == Errc::ok);
    CHECK(create_sequential(tree, "/q/") == "/q/0000000000");
}

TEST_CASE("ZooKeeper B13, faults C22: sequence: past 2^31 and past ten digits") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    const auto from = [&tree](std::uint64_t creations) {
        Bytes bytes = save(tree);
        patch_u64(bytes, "/a", creations_field, creations);
        Tree patched;
        REQUIRE(load(patched, bytes) == Errc::ok);
        const Bytes first = create_sequential(patched, "/a/n");
        const Bytes second = create_sequential(patched, "/a/n");
        patched.audit();
        CHECK(children(patched, "/a").size() == 2);
        CHECK(stat(patched, "/a").cversion == static_cast<std::int64_t>(2 * creations + 2));
        return first.substr(3) + " " + second.substr(3);
    };
    CHECK(from(2147483647) == "n2147483647 n2147483648");
    CHECK(from(4294967295) == "n4294967295 n4294967296");
    CHECK(from(9999999998) == "n9999999998 n9999999999");
    CHECK(from(9999999999) == "n9999999999 n10000000000");
    CHECK(from(123456789012345678) == "n123456789012345678 n123456789012345679");
}

// Nobody creates so many; what another replica sends as a snapshot may say so.
TEST_CASE("sequence: the last one there is, and no state after it that could not be loaded") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    Bytes bytes = save(tree);
    patch_u64(bytes, "/a", creations_field, (std::uint64_t{1} << 61) - 1);
    REQUIRE(load(tree, bytes) == Errc::ok);
    REQUIRE(create(tree, "/a/last") == Errc::ok);
    CHECK(create(tree, "/a/more") == Errc::too_many);
    CHECK(create(tree, "/a/last") == Errc::node_exists);
    tree.begin_undo();
    REQUIRE(set(tree, "/a") == Errc::ok);
    tree.end_undo(true);
    Tree again;
    CHECK(load(again, save(tree)) == Errc::ok);
    CHECK(again.digest() == tree.digest());
}

// ---- Null

TEST_CASE("null: not what any other view of nothing is") {
    const Bytes none;
    CHECK(coord::is_null(coord::null_data));
    CHECK(coord::null_data.empty());
    CHECK_FALSE(coord::is_null(""));
    CHECK_FALSE(coord::is_null(BytesView{}));
    CHECK_FALSE(coord::is_null(none));
    CHECK_FALSE(coord::is_null(Bytes(coord::null_data)));
    CHECK_FALSE(coord::is_null(std::string()));
    // What ends where the place begins, or begins where it ends, may be anybody's.
    for (const std::size_t side : {std::size_t{0}, sizeof coord::detail::null_place}) {
        CHECK_FALSE(coord::is_null(BytesView{coord::detail::null_place + side, 0}));
    }
}

TEST_CASE("null: kept apart from no bytes, by create and set, whatever was there before") {
    Tree tree;
    Bytes made;
    const auto is_null = [&](BytesView path) { return coord::is_null(tree.find(path)->data); };
    REQUIRE(create(tree, "/n", CreateMode::persistent, coord::null_data, 1, 1, {}, made) ==
            Errc::ok);
    REQUIRE(create(tree, "/e", CreateMode::persistent, "", 1, 1, {}, made) == Errc::ok);
    CHECK(is_null("/n"));
    CHECK_FALSE(is_null("/e"));
    CHECK_FALSE(is_null("/"));  // ZooKeeper's root is empty
    CHECK(stat(tree, "/n").data_length == 0);
    std::uint64_t version = 0;
    const auto put = [&](BytesView value) {
        version += 1;
        REQUIRE(tree.set("/n", value, any_version, Zxid{version + 1}, 1) == Errc::ok);
        tree.audit();
        CHECK(is_null("/n") == coord::is_null(value));
        CHECK(data(tree, "/n") == value);
    };
    put(""), put(coord::null_data), put("some"), put(coord::null_data), put(coord::null_data);
    put(Bytes(5000, 'x')), put(coord::null_data), put("some"), put(""), put(coord::null_data);
    std::size_t seen = 0;
    tree.visit([&](const coord::NodeView& node) { seen += coord::is_null(node.data) ? 1u : 0u; });
    CHECK(seen == 1);
}

TEST_CASE("null: saved, loaded, undone and in the digest") {
    Tree tree;
    Bytes made;
    std::uint64_t digests[2];
    std::vector<Bytes> records[2];
    for (const bool null : {false, true}) {
        tree.reset();
        const BytesView value = null ? coord::null_data : BytesView("");
        REQUIRE(create(tree, "/n", CreateMode::persistent, value, 1, 1, {}, made) == Errc::ok);
        digests[null] = tree.digest(), records[null] = sorted(tree);
        Tree other{7};
        REQUIRE(load(other, save(tree)) == Errc::ok);
        other.audit();
        CHECK(coord::is_null(other.find("/n")->data) == null);
        CHECK(other.digest() == tree.digest());
        CHECK(sorted(other) == records[null]);
        tree.begin_undo();
        REQUIRE(set(tree, "/n") == Errc::ok);
        REQUIRE(tree.set("/n", null ? BytesView("") : coord::null_data, any_version, Zxid{3}, 3) ==
                Errc::ok);
        REQUIRE(remove(tree, "/n") == Errc::ok);
        tree.end_undo(true);
        tree.audit();
        CHECK(coord::is_null(tree.find("/n")->data) == null);
        CHECK(tree.digest() == digests[null]);
        CHECK(sorted(tree) == records[null]);
    }
    CHECK(digests[0] != digests[1]);
    CHECK(hex(records[1][1]).substr(0, 30) == "030000004f" "00000002" "2f6e" "ffffffff");
    CHECK(hex(records[0][1]).substr(0, 30) == "030000004f" "00000002" "2f6e" "00000000");
}

// ---- What goes by itself

TEST_CASE("T7 a container goes when it has had children and has none any more") {
    Tree tree;
    REQUIRE(create(tree, "/c", CreateMode::container) == Errc::ok);
    CHECK(stat(tree, "/c").ephemeral_owner == SessionId{});
    CHECK(due(tree, INT64_MAX).empty());  // never used
    CHECK(tree.reap("/c", Zxid{1}, Zxid{9}, INT64_MAX) == Errc::bad_version);
    REQUIRE(create(tree, "/c/x") == Errc::ok);
    CHECK(due(tree, INT64_MAX).empty());
    CHECK(tree.reap("/c", Zxid{1}, Zxid{9}, INT64_MAX) == Errc::not_empty);
    REQUIRE(remove(tree, "/c/x") == Errc::ok);
    CHECK(due(tree, 0) == std::vector<Bytes>{"/c"});  // at any time
    REQUIRE(set(tree, "/c") == Errc::ok);
    CHECK(due(tree, INT64_MIN) == std::vector<Bytes>{"/c"});
    CHECK(tree.reap("/c", Zxid{1}, Zxid{10}, INT64_MIN) == Errc::ok);
    CHECK_FALSE(tree.contains("/c"));
    CHECK(due(tree, 0).empty());
    CHECK(stat(tree, "/").pzxid == Zxid{10});
    CHECK(stat(tree, "/").num_children == 1);
    CHECK(tree.reap("/c", Zxid{1}, Zxid{11}, 0) == Errc::no_node);
    tree.audit();
}

TEST_CASE("T7 a node with a ttl goes when it has no children and was last set longer ago") {
    Tree tree;
    create_with_ttl(tree, "/t", 10);
    CHECK(stat(tree, "/t").ephemeral_owner == SessionId{});
    CHECK(due(tree, 11).empty());
    CHECK(due(tree, 12) == std::vector<Bytes>{"/t"});
    CHECK(tree.reap("/t", Zxid{1}, Zxid{9}, 11) == Errc::bad_version);
    REQUIRE(create(tree, "/t/x") == Errc::ok);
    CHECK(due(tree, 12).empty());
    CHECK(tree.reap("/t", Zxid{1}, Zxid{9}, 12) == Errc::not_empty);
    REQUIRE(remove(tree, "/t/x") == Errc::ok);  // children do not refresh it
    CHECK(due(tree, 12) == std::vector<Bytes>{"/t"});
    REQUIRE(tree.set("/t", Bytes(500, 'd'), any_version, Zxid{9}, 100) == Errc::ok);  // it moves
    CHECK(tree.reap("/t", Zxid{1}, Zxid{9}, 12) == Errc::bad_version);
    CHECK(tree.reap("/t", Zxid{1}, Zxid{9}, 110) == Errc::bad_version);
    CHECK(tree.life("/t")->ttl_ms == 10);
    CHECK(tree.reap("/t", Zxid{1}, Zxid{9}, 111) == Errc::ok);
    CHECK_FALSE(tree.contains("/t"));
    tree.audit();
}

TEST_CASE("T7 no time that a clock may have is an overflow") {
    Tree tree;
    Bytes made;
    const auto make = [&](const char* path, std::int64_t time_ms, std::int64_t ttl_ms) {
        const auto mode = CreateMode::persistent_with_ttl;
        REQUIRE(create(tree, path, mode, "", 1, time_ms, {}, made, ttl_ms) == Errc::ok);
    };
    make("/first", INT64_MIN, coord::ttl_ms_max);
    make("/last", INT64_MAX, 1);
    make("/zero", 0, coord::ttl_ms_max);
    CHECK(due(tree, INT64_MIN).empty());
    CHECK(due(tree, INT64_MIN + coord::ttl_ms_max).empty());
    CHECK(due(tree, INT64_MIN + coord::ttl_ms_max + 1) == std::vector<Bytes>{"/first"});
    CHECK(due(tree, coord::ttl_ms_max) == std::vector<Bytes>{"/first"});
    CHECK(due(tree, INT64_MAX) == std::vector<Bytes>{"/first", "/zero"});
}

TEST_CASE("T7 nothing else goes by itself, nor another node at that path") {
    Tree tree;
    create_with_ttl(tree, "/t", 1);
    REQUIRE(create(tree, "/p") == Errc::ok);
    REQUIRE(create(tree, "/p/x") == Errc::ok);
    REQUIRE(remove(tree, "/p/x") == Errc::ok);
    REQUIRE(create(tree, "/e", CreateMode::ephemeral) == Errc::ok);
    CHECK(due(tree, 99) == std::vector<Bytes>{"/t"});
    const std::uint64_t digest = tree.digest();
    CHECK(tree.reap("/p", Zxid{1}, Zxid{9}, 99) == Errc::bad_version);
    CHECK(tree.reap("/e", Zxid{1}, Zxid{9}, 99) == Errc::bad_version);
    CHECK(tree.reap("/t", Zxid{2}, Zxid{9}, 99) == Errc::no_node);
    CHECK(tree.reap("/none", Zxid{1}, Zxid{9}, 99) == Errc::no_node);
    for (const char* const path : {"", "/", "/zookeeper", "/zookeeper/config"}) {
        CHECK(tree.reap(path, Zxid{}, Zxid{9}, 99) == Errc::bad_version);
    }
    CHECK(tree.digest() == digest);
    REQUIRE(remove(tree, "/t") == Errc::ok);
    CHECK(due(tree, 99).empty());
    CHECK(tree.life("/p")->kind == NodeKind::persistent);
    CHECK(tree.life("/e")->owner == SessionId{5});
    CHECK_FALSE(tree.life("/none"));
}

TEST_CASE("T7 what is due is found in slices, whatever comes and goes between them") {
    Tree tree;
    for (int i = 0; i < 100; i++) create_with_ttl(tree, "/t" + std::to_string(i), 1 + i % 2 * 50);
    CHECK(due(tree, 40).size() == 50);
    CHECK(due(tree, 40, 1).size() == 50);
    CHECK(due(tree, 90).size() == 100);
    std::uint64_t place = 0;
    std::uint32_t looks = 10;
    std::size_t found = 0;
    while (tree.next_due(place, looks, 40)) found += 1;
    CHECK(found == 5);
    CHECK(looks == 0);
    CHECK(place != 0);
    for (int i = 0; i < 100; i += 2) {
        REQUIRE(tree.reap("/t" + std::to_string(i), Zxid{1}, Zxid{9}, 40) == Errc::ok);
    }
    looks = 1000;
    CHECK_FALSE(tree.next_due(place, looks, 40));
    CHECK(place == 0);
    CHECK(looks == 955);  // of those that are left behind the place, each once
    tree.audit();
}

TEST_CASE("T6 T7 what goes and comes in what is undone is what it was") {
    Tree tree;
    create_with_ttl(tree, "/t", 10);
    REQUIRE(create(tree, "/c", CreateMode::container) == Errc::ok);
    REQUIRE(create(tree, "/c/x") == Errc::ok);
    const std::vector<Bytes> before = sorted(tree);
    const std::uint64_t digest = tree.digest();
    tree.begin_undo();
    REQUIRE(remove(tree, "/t") == Errc::ok);
    REQUIRE(create(tree, "/t", CreateMode::container) == Errc::ok);
    REQUIRE(remove(tree, "/c/x") == Errc::ok);
    REQUIRE(remove(tree, "/c") == Errc::ok);
    create_with_ttl(tree, "/c", 7);
    create_with_ttl(tree, "/new", 8);
    tree.end_undo(true);
    tree.audit();
    CHECK(tree.digest() == digest);
    CHECK(sorted(tree) == before);
    CHECK(tree.life("/t")->ttl_ms == 10);
    CHECK(tree.life("/c")->kind == NodeKind::container);
    CHECK(due(tree, 50) == std::vector<Bytes>{"/t"});
}

TEST_CASE("T7 the digest tells kinds and ttls apart") {
    std::vector<std::uint64_t> digests;
    for (const int mode : {0, 1, 4, 5}) {
        for (const std::int64_t ttl_ms : {1, 2, 1 << 20}) {
            if (mode != 5 && ttl_ms != 1) continue;
            Tree tree;
            Bytes made;
            REQUIRE(create(tree, "/n", static_cast<CreateMode>(mode), "", 1, 1, SessionId{2}, made,
                           ttl_ms) == Errc::ok);
            digests.push_back(tree.digest());
        }
    }
    std::sort(digests.begin(), digests.end());
    CHECK(digests.size() == 6);
    CHECK(std::unique(digests.begin(), digests.end()) == digests.end());
}

// ---- Remove

TEST_CASE("remove: the order of the errors") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(create(tree, "/a/b") == Errc::ok);
    for (const char* const path :
         {"", "a", "/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"}) {
        CAPTURE(path);
        CHECK(remove(tree, path) == Errc::bad_arguments);
        CHECK(remove(tree, path, 77) == Errc::bad_arguments);
    }
    CHECK(remove(tree, BytesView{"/a\0", 3}) == Errc::bad_arguments);
    CHECK(remove(tree, BytesView{"/none/\0", 7}) == Errc::bad_arguments);
    // No full check of the path: what is malformed is not there.
    for (const char* const path : {"/none/x", "/none", "/a/", "/a/none", "//", "//a", "a/b", "/..",
                                   "/zookeeper/", "/zookeeper/none"}) {
        CAPTURE(path);
        CHECK(remove(tree, path, 77) == Errc::no_node);
    }
    CHECK(remove(tree, "/a", 1) == Errc::bad_version);  // before its children are looked at
    CHECK(remove(tree, "/a", 0) == Errc::not_empty);
    CHECK(remove(tree, "/a") == Errc::not_empty);
    CHECK(remove(tree, "/a/b", 1) == Errc::bad_version);
    CHECK(remove(tree, "/a/b", 0) == Errc::ok);
    CHECK(remove(tree, "/a/b", 0) == Errc::no_node);
    CHECK(remove(tree, "/a") == Errc::ok);
    CHECK(tree.size() == 4);
    tree.audit();
}

TEST_CASE("remove: below /zookeeper everything else may go") {
    Tree tree;
    REQUIRE(create(tree, "/zookeeper/quota/x") == Errc::ok);
    CHECK(remove(tree, "/zookeeper/quota/x") == Errc::ok);
    REQUIRE(create(tree, "/zookeeper/y") == Errc::ok);
    CHECK(stat(tree, "/zookeeper").cversion == -1);
    CHECK(remove(tree, "/zookeeper/y") == Errc::ok);
    CHECK(stat(tree, "/zookeeper").cversion == 0);
    CHECK(stat(tree, "/zookeeper").num_children == 2);
    tree.audit();
}

TEST_CASE("remove: an ephemeral goes like any other") {
    Tree tree;
    REQUIRE(create(tree, "/e", CreateMode::ephemeral) == Errc::ok);
    CHECK(stat(tree, "/e").ephemeral_owner == SessionId{5});
    CHECK(set(tree, "/e") == Errc::ok);
    CHECK(stat(tree, "/e").ephemeral_owner == SessionId{5});
    CHECK(remove(tree, "/e", 1) == Errc::ok);
    CHECK(!tree.contains("/e"));
}

TEST_CASE("remove: the path may be the node's own") {
    Tree tree;
    REQUIRE(create(tree, "/a-path-of-some-length") == Errc::ok);
    CHECK(remove(tree, tree.find("/a-path-of-some-length")->path) == Errc::ok);
    CHECK(tree.size() == 4);
}

// ---- Set

TEST_CASE("set: the order of the errors") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    for (const char* const path :
         {"", "a", "a/b", "/a/", "//", "//a", "/.", "/none/..", "/a/\x01"}) {
        CAPTURE(path);
        CHECK(set(tree, path) == Errc::bad_arguments);
        CHECK(set(tree, path, 77) == Errc::bad_arguments);
    }
    CHECK(set(tree, BytesView{"/a\0", 3}) == Errc::bad_arguments);
    CHECK(set(tree, "/none") == Errc::no_node);
    CHECK(set(tree, "/none", 77) == Errc::no_node);
    CHECK(set(tree, "/a/none") == Errc::no_node);
    CHECK(set(tree, "/a", 1) == Errc::bad_version);
    CHECK(set(tree, "/a", -2) == Errc::bad_version);
    CHECK(data(tree, "/a").empty());
    CHECK(set(tree, "/a", 0) == Errc::ok);
    CHECK(set(tree, "/a", 0) == Errc::bad_version);
    CHECK(set(tree, "/a", 1) == Errc::ok);
    CHECK(set(tree, "/a", any_version) == Errc::ok);
    CHECK(data(tree, "/a") == "new");
    tree.audit();
}

TEST_CASE("set: the built-in nodes hold data as well") {
    Tree tree;
    for (const char* const path : {"/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"}) {
        CAPTURE(path);
        CHECK(set(tree, path, 0) == Errc::ok);
        CHECK(data(tree, path) == "new");
        CHECK(stat(tree, path).version == 1);
    }
    CHECK(data(tree, "") == "new");
    CHECK(tree.find("")->path == "/");
    tree.audit();
}

TEST_CASE("set: an equal value is a set") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(tree.set("/a", "x", any_version, Zxid{2}, 2) == Errc::ok);
    REQUIRE(tree.set("/a", "x", any_version, Zxid{3}, 3) == Errc::ok);
    CHECK(stat(tree, "/a").version == 2);
    CHECK(stat(tree, "/a").mzxid == Zxid{3});
}

TEST_CASE("faults C23: set: versions skip -1, which stands for any") {
    const auto next = [](std::int32_t version) {
        Tree tree;
        REQUIRE(create(tree, "/a") == Errc::ok);
        Bytes bytes = save(tree);
        patch(bytes, "/a", version_field, static_cast<std::uint32_t>(version));
        REQUIRE(load(tree, bytes) == Errc::ok);
        REQUIRE(stat(tree, "/a").version == version);
        REQUIRE(set(tree, "/a", version) == Errc::ok);
        tree.audit();
        return stat(tree, "/a").version;
    };
    CHECK(next(0) == 1);
    CHECK(next(INT32_MAX - 1) == INT32_MAX);
    CHECK(next(INT32_MAX) == INT32_MIN);
    CHECK(next(INT32_MIN) == INT32_MIN + 1);
    CHECK(next(-3) == -2);
    CHECK(next(-2) == 0);
}

TEST_CASE("set: any bytes of any size, longer and shorter") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    coord::Rng rng{support::seed_or(8)};
    for (int i = 0; i < 2000; i++) {
        Bytes value;
        const std::uint64_t size = rng.below(rng.chance(50) ? 5000 : 200);
        for (std::uint64_t j = 0; j < size; j++) value.push_back(static_cast<char>(rng.next()));
        REQUIRE(tree.set("/a", value, any_version, Zxid{1}, 1) == Errc::ok);
        REQUIRE(data(tree, "/a") == value);
        REQUIRE(stat(tree, "/a").data_length == static_cast<std::int32_t>(value.size()));
        if (i % 100 == 0) tree.audit();
    }
    tree.audit();
}

TEST_CASE("set: values of about one size stay where they are") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(tree.set("/a", Bytes(128, 'x'), any_version, Zxid{1}, 1) == Errc::ok);
    const char* const place = tree.find("/a")->data.data();
    for (std::size_t size = 64; size <= 128; size++) {
        REQUIRE(tree.set("/a", Bytes(size, 'y'), any_version, Zxid{1}, 1) == Errc::ok);
        REQUIRE(tree.find("/a")->data.data() == place);
        REQUIRE(data(tree, "/a") == Bytes(size, 'y'));
    }
    // A value that has become small gives its memory back.
    REQUIRE(tree.set("/a", Bytes(100000, 'z'), any_version, Zxid{1}, 1) == Errc::ok);
    const char* const large = tree.find("/a")->data.data();
    REQUIRE(tree.set("/a", "", any_version, Zxid{1}, 1) == Errc::ok);
    CHECK(tree.find("/a")->data.data() != large);
    tree.audit();
}

TEST_CASE("set: the data may be a view into the tree") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    const Bytes value = "0123456789abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    const auto put = [&](BytesView bytes) {
        REQUIRE(tree.set("/a", bytes, any_version, Zxid{1}, 1) == Errc::ok);
    };
    put(value);
    put(tree.find("/a")->data);
    CHECK(data(tree, "/a") == value);
    put(tree.find("/a")->data.substr(10, 50));  // moved within its block
    CHECK(data(tree, "/a") == value.substr(10, 50));
    put(Bytes(10000, 'x') + value);
    put(tree.find("/a")->data.substr(10000));  // into a smaller block
    CHECK(data(tree, "/a") == value);
    tree.audit();
}

// ---- Stat

namespace {

// All fields at once, so that a row says what did NOT change as well.
std::string row(const Tree& tree, BytesView path) {
    const Stat s = stat(tree, path);
    std::string text;
    const std::int64_t fields[] = {static_cast<std::int64_t>(s.czxid.value),
                                   static_cast<std::int64_t>(s.mzxid.value),
                                   static_cast<std::int64_t>(s.pzxid.value),
                                   s.ctime_ms,
                                   s.mtime_ms,
                                   s.version,
                                   s.cversion,
                                   s.aversion,
                                   static_cast<std::int64_t>(s.ephemeral_owner.value),
                                   s.data_length,
                                   s.num_children};
    for (const std::int64_t field : fields) text += std::to_string(field) + " ";
    return text;
}

}  // namespace

TEST_CASE("stat: what each operation changes in the node and in its parent") {
    Tree tree;
    Bytes made;
    // czxid mzxid pzxid ctime mtime version cversion aversion owner data_length num_children
    CHECK(row(tree, "/") == "0 0 0 0 0 0 -1 0 0 0 1 ");

    REQUIRE(create(tree, "/p", CreateMode::persistent, "four", 11, 101, {}, made) == Errc::ok);
    CHECK(row(tree, "/p") == "11 11 11 101 101 0 0 0 0 4 0 ");
    CHECK(row(tree, "/") == "0 0 11 0 0 0 0 0 0 0 2 ");

    REQUIRE(create(tree, "/p/x", CreateMode::ephemeral, "", 12, 102, SessionId{77}, made) ==
            Errc::ok);
    CHECK(row(tree, "/p/x") == "12 12 12 102 102 0 0 0 77 0 0 ");
    CHECK(row(tree, "/p") == "11 11 12 101 101 0 1 0 0 4 1 ");
    CHECK(row(tree, "/") == "0 0 11 0 0 0 0 0 0 0 2 ");  // a grandchild changes nothing

    REQUIRE(tree.set("/p/x", "abc", 0, Zxid{13}, 103) == Errc::ok);
    CHECK(row(tree, "/p/x") == "12 13 12 102 103 1 0 0 77 3 0 ");
    CHECK(row(tree, "/p") == "11 11 12 101 101 0 1 0 0 4 1 ");

    REQUIRE(tree.set("/p", "", 0, Zxid{14}, 104) == Errc::ok);
    CHECK(row(tree, "/p") == "11 14 12 101 104 1 1 0 0 0 1 ");
    CHECK(row(tree, "/") == "0 0 11 0 0 0 0 0 0 0 2 ");

    REQUIRE(tree.remove("/p/x", 1, Zxid{15}) == Errc::ok);
    CHECK(row(tree, "/p") == "11 14 15 101 104 1 2 0 0 0 0 ");
    CHECK(row(tree, "/") == "0 0 11 0 0 0 0 0 0 0 2 ");

    REQUIRE(create(tree, "/p/x", CreateMode::persistent, "", 16, 106, {}, made) == Errc::ok);
    CHECK(row(tree, "/p/x") == "16 16 16 106 106 0 0 0 0 0 0 ");
    CHECK(row(tree, "/p") == "11 14 16 101 104 1 3 0 0 0 1 ");

    REQUIRE(tree.remove("/p/x", any_version, Zxid{17}) == Errc::ok);
    REQUIRE(tree.remove("/p", any_version, Zxid{18}) == Errc::ok);
    CHECK(row(tree, "/") == "0 0 18 0 0 0 1 0 0 0 1 ");
    tree.audit();
}

TEST_CASE("stat: what fails changes nothing") {
    Tree tree;
    REQUIRE(create(tree, "/p") == Errc::ok);
    REQUIRE(create(tree, "/p/x") == Errc::ok);
    const std::uint64_t digest = tree.digest();
    const Bytes before = save(tree);
    CHECK(create(tree, "/p/x") == Errc::node_exists);
    CHECK(create(tree, "/none/x") == Errc::no_node);
    CHECK(remove(tree, "/p") == Errc::not_empty);
    CHECK(remove(tree, "/p/x", 4) == Errc::bad_version);
    CHECK(set(tree, "/p/x", 4) == Errc::bad_version);
    CHECK(set(tree, "/p/y") == Errc::no_node);
    CHECK(tree.digest() == digest);
    CHECK(save(tree) == before);
}

// ---- Children

TEST_CASE("children: in order of their bytes") {
    Tree tree;
    for (const char* const path :
         {"/b", "/a", "/B", "/a-", "/aa", "/\xC3\xA9", "/~", "/10", "/9"}) {
        REQUIRE(create(tree, path) == Errc::ok);
    }
    CHECK(children(tree, "/") == std::vector<Bytes>{"10", "9", "B", "a", "a-", "aa", "b",
                                                    "zookeeper", "~", "\xC3\xA9"});
}

TEST_CASE("children: names only, of one level only") {
    Tree tree;
    for (const char* const path : {"/a", "/a/x", "/a/x/deep", "/a/y", "/ab"}) {
        REQUIRE(create(tree, path) == Errc::ok);
    }
    CHECK(children(tree, "/a") == std::vector<Bytes>{"x", "y"});
    CHECK(children(tree, "/a/x") == std::vector<Bytes>{"deep"});
    CHECK(children(tree, "/ab").empty());
}

TEST_CASE("children: pages of every size are the whole") {
    Tree tree;
    REQUIRE(create(tree, "/p") == Errc::ok);
    coord::Rng rng{support::seed_or(9)};
    for (int i = 0; i < 300; i++) {
        (void)create(tree, "/p/" + std::to_string(rng.below(100000)));
    }
    const std::vector<Bytes> whole = children(tree, "/p");
    CHECK(std::is_sorted(whole.begin(), whole.end()));
    CHECK(whole.size() == static_cast<std::size_t>(stat(tree, "/p").num_children));
    for (const std::size_t limit : {1u, 2u, 7u, 299u, 300u, 1000u}) {
        std::vector<Bytes> joined;
        std::size_t page = limit;
        while (page == limit) {
            const std::vector<Bytes> names =
                children(tree, "/p", joined.empty() ? "" : joined.back(), limit);
            joined.insert(joined.end(), names.begin(), names.end());
            page = names.size();
        }
        CHECK(joined == whole);
    }
}

TEST_CASE("children: a page starts after a name, whether it is there or not") {
    Tree tree;
    for (const char* const path : {"/p", "/p/b", "/p/d", "/p/f"}) {
        REQUIRE(create(tree, path) == Errc::ok);
    }
    CHECK(children(tree, "/p", "a") == std::vector<Bytes>{"b", "d", "f"});
    CHECK(children(tree, "/p", "b") == std::vector<Bytes>{"d", "f"});
    CHECK(children(tree, "/p", "c") == std::vector<Bytes>{"d", "f"});
    CHECK(children(tree, "/p", "c", 1) == std::vector<Bytes>{"d"});
    CHECK(children(tree, "/p", "f").empty());
    CHECK(children(tree, "/p", "z").empty());
    CHECK(children(tree, "/p", "", 0).empty());
}

TEST_CASE("children: are appended") {
    const Tree tree;
    std::vector<Bytes> names{"first"};
    REQUIRE(tree.children("/zookeeper", "", 10, names) == Errc::ok);
    CHECK(names == std::vector<Bytes>{"first", "config", "quota"});
    CHECK(tree.children("/none", "", 10, names) == Errc::no_node);
    CHECK(names.size() == 3);
}

TEST_CASE("children, list: by prefix of the name, after a name, page by page, as by hand") {
    Tree tree;
    REQUIRE(create(tree, "/p") == Errc::ok);
    coord::Rng rng{support::seed_or(19)};
    for (int i = 0; i < 400; i++) {
        Bytes name = "/p/";
        for (std::uint64_t size = rng.between(1, 4); size > 0; size--) {
            name += static_cast<char>('a' + rng.below(3));
        }
        if (create(tree, name) == Errc::ok) REQUIRE(create(tree, name + "/below") == Errc::ok);
        (void)tree.set(name, name + "!", any_version, Zxid{7}, 7);
    }
    const std::vector<Bytes> whole = children(tree, "/p");
    REQUIRE(whole.size() > 60);
    for (const BytesView prefix : {"", "a", "b", "cc", "abc", "bbbb", "d", "A", "aaaaa"}) {
        for (const BytesView after : {"", "a", "ab", "abc", "b", "bz", "c", "cccc", "z"}) {
            for (const std::size_t limit : {0u, 1u, 2u, 5u, 1000u}) {
                std::vector<Bytes> right;
                for (const Bytes& name : whole) {
                    const bool fits = BytesView(name).substr(0, prefix.size()) == prefix;
                    if (fits && after < name && right.size() < limit) right.push_back(name);
                }
                std::vector<Bytes> names, listed;
                REQUIRE(tree.children("/p", after, limit, names, prefix) == Errc::ok);
                CHECK(names == right);
                if (limit == 0) continue;
                REQUIRE(tree.list("/p", after, prefix, [&](const coord::NodeView& node) {
                    listed.emplace_back(coord::node_name(node.path));
                    CHECK(node.data == "/p/" + listed.back() + "!");
                    CHECK(node.stat.num_children == 1);
                    return listed.size() < limit;
                }) == Errc::ok);
                CHECK(listed == right);
            }
        }
    }
    CHECK(tree.list("/none", "", "", [](const coord::NodeView&) { return true; }) ==
          Errc::no_node);
}

TEST_CASE("list: of the root, and of a node without children") {
    Tree tree;
    REQUIRE(create(tree, "/b") == Errc::ok);
    std::vector<Bytes> paths;
    const auto visit = [&](const coord::NodeView& node) {
        paths.emplace_back(node.path);
        return true;
    };
    REQUIRE(tree.list("/", "", "", visit) == Errc::ok);
    CHECK(paths == std::vector<Bytes>{"/b", "/zookeeper"});
    REQUIRE(tree.list("/", "", "z", visit) == Errc::ok);
    REQUIRE(tree.list("/b", "", "", visit) == Errc::ok);
    CHECK(paths == std::vector<Bytes>{"/b", "/zookeeper", "/zookeeper"});
}

TEST_CASE("descendants: all nodes below, however deep, and no more are counted than asked for") {
    Tree tree;
    for (const char* const path : {"/a", "/a/1", "/a/1/x", "/a/1/x/y", "/a/2", "/a/3", "/a/3/z",
                                   "/ab", "/ab/1"}) {
        REQUIRE(create(tree, path) == Errc::ok);
    }
    const auto count = [&tree](BytesView path, std::size_t limit) {
        return tree.descendants(path, limit).value_or(777);
    };
    CHECK(count("/a", 100) == 6);
    CHECK(count("/a", 6) == 6);
    CHECK(tree.descendants("/a", 5).error() == Errc::too_large);
    CHECK(tree.descendants("/a", 0).error() == Errc::too_large);
    CHECK(tree.descendants("/b", 100).error() == Errc::no_node);
    CHECK(count("/a/1", 2) == 2);
    CHECK(count("/a/3", 100) == 1);
    CHECK(count("/a/2", 0) == 0);
    CHECK(count("/ab", 100) == 1);
    CHECK(count("/", 0) == tree.size() - 1);
    REQUIRE(remove(tree, "/a/1/x/y") == Errc::ok);
    CHECK(count("/a", 100) == 5);
}

TEST_CASE("visit: parents first, siblings in order, everything once") {
    Tree tree;
    for (const char* const path : {"/b", "/a", "/a/z", "/a/y", "/a/y/1", "/c", "/b/x"}) {
        REQUIRE(create(tree, path) == Errc::ok);
    }
    std::vector<Bytes> seen;
    tree.visit([&seen](const coord::NodeView& node) { seen.emplace_back(node.path); });
    CHECK(seen == std::vector<Bytes>{"/", "/a", "/a/y", "/a/y/1", "/a/z", "/b", "/b/x", "/c",
                                     "/zookeeper", "/zookeeper/config", "/zookeeper/quota"});
}

TEST_CASE("visit: shows what find shows") {
    Tree tree;
    make_golden(tree);
    std::size_t seen = 0;
    tree.visit([&](const coord::NodeView& node) {
        const auto found = tree.find(node.path);
        REQUIRE(found);
        CHECK(found->path == node.path);
        CHECK(found->data == node.data);
        CHECK(found->stat.czxid == node.stat.czxid);
        CHECK(found->stat.num_children == node.stat.num_children);
        seen += 1;
    });
    CHECK(seen == tree.size());
}

// ---- Digest

// Red only where the digest was changed: replicas of two releases then disagree for ever.
TEST_CASE("golden: digests") {
    Tree tree;
    CHECK(tree.digest() == 0x169075c8fc36ab41u);
    make_golden(tree);
    CHECK(tree.digest() == 0x7dff01167c837d9eu);
    tree.reset();
    make_golden_kinds(tree);
    CHECK(tree.digest() == 0x123837c817fd020du);
    tree.reset();
    CHECK(tree.digest() == 0x169075c8fc36ab41u);
    tree.audit();
}

TEST_CASE("digest: histories that lead to the same nodes have the same") {
    Tree a{1}, b{2};
    Bytes made;
    const auto make = [&](Tree& tree, const char* path, std::uint64_t zxid) {
        REQUIRE(create(tree, path, CreateMode::persistent, path, zxid, 50, {}, made) == Errc::ok);
    };
    make(a, "/x", 1), make(a, "/x/1", 2), make(a, "/x/2", 3), make(a, "/y", 4);
    REQUIRE(a.set("/x/1", "new", any_version, Zxid{6}, 60) == Errc::ok);
    REQUIRE(a.set("/x/2", "newer", any_version, Zxid{7}, 70) == Errc::ok);
    // Other order, other places in memory, and a detour.
    make(b, "/x", 1), make(b, "/x/2", 3);
    REQUIRE(b.set("/x/2", "newer", any_version, Zxid{7}, 70) == Errc::ok);
    make(b, "/x/1", 2), make(b, "/y", 4);
    REQUIRE(b.set("/x/1", "new", any_version, Zxid{6}, 60) == Errc::ok);
    CHECK(a.digest() != b.digest());  // the last create below /x had another zxid
    make(a, "/x/3", 8), make(b, "/x/3", 8);
    CHECK(a.digest() == b.digest());
    CHECK(sorted(a) == sorted(b));
}

TEST_CASE("digest: sees every field of every node") {
    Tree tree;
    make_golden_kinds(tree);
    const Bytes bytes = save(tree);
    std::size_t valid = 0;
    for (std::size_t i = 0; i < bytes.size(); i++) {
        Bytes changed = bytes;
        changed[i] = static_cast<char>(changed[i] ^ 1);
        Tree other;
        if (load(other, changed) != Errc::ok) continue;
        CAPTURE(i);
        CHECK(other.digest() != tree.digest());
        valid += 1;
    }
    CHECK(valid > 300);
}

TEST_CASE("digest: an operation and its opposite leave a trace") {
    Tree tree;
    const std::uint64_t fresh = tree.digest();
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(remove(tree, "/a") == Errc::ok);
    CHECK(tree.digest() != fresh);  // the root has had a creation
    CHECK(stat(tree, "/").cversion == 1);
}

TEST_CASE("digest: equal data in other nodes does not cancel out") {
    Tree a, b;
    for (Tree* const tree : {&a, &b}) {
        REQUIRE(create(*tree, "/x") == Errc::ok);
        REQUIRE(create(*tree, "/y") == Errc::ok);
    }
    REQUIRE(a.set("/x", "1", any_version, Zxid{2}, 2) == Errc::ok);
    REQUIRE(a.set("/y", "2", any_version, Zxid{2}, 2) == Errc::ok);
    REQUIRE(b.set("/x", "2", any_version, Zxid{2}, 2) == Errc::ok);
    REQUIRE(b.set("/y", "1", any_version, Zxid{2}, 2) == Errc::ok);
    CHECK(a.digest() != b.digest());
}

// ---- Save and load

TEST_CASE("golden: a saved tree") {
    Tree tree;
    make_golden(tree);
    CHECK(hex(save(tree)) == golden_tree);
}

TEST_CASE("golden: a container and nodes with a ttl, saved") {
    Tree tree;
    make_golden_kinds(tree);
    const std::vector<Bytes> records = sorted(tree);
    const std::vector<Bytes> expected = support::sorted_records(unhex(golden_kinds));
    REQUIRE(records.size() == 9);
    REQUIRE(expected.size() == 3);
    for (const Bytes& record : expected) {
        CHECK(std::count(records.begin(), records.end(), record) == 1);
    }
    Tree other{4};
    REQUIRE(load(other, save(tree)) == Errc::ok);
    other.audit();
    CHECK(other.digest() == tree.digest());
    CHECK(sorted(other) == records);
    CHECK(other.life("/c")->kind == NodeKind::container);
    CHECK(other.life("/t")->kind == NodeKind::ttl);
    CHECK(other.life("/t")->ttl_ms == 0x0102030405);
    CHECK(other.life("/t/0000000000")->ttl_ms == 1);
}

TEST_CASE("load: what was saved is there again") {
    Tree tree{3}, other{4};
    make_golden(tree);
    REQUIRE(create(other, "/to-be-forgotten") == Errc::ok);
    const Bytes bytes = save(tree);
    REQUIRE(load(other, bytes) == Errc::ok);
    other.audit();
    CHECK(other.digest() == tree.digest());
    CHECK(other.size() == tree.size());
    CHECK(sorted(other) == sorted(tree));
    CHECK(!other.contains("/to-be-forgotten"));
    CHECK(row(other, "/a/b-0000000000") == row(tree, "/a/b-0000000000"));
    CHECK(data(other, "/a/b-0000000000") == (BytesView{"\0\xff", 2}));
    REQUIRE(create(other, "/a/more") == Errc::ok);
    other.audit();
}

TEST_CASE("save: appends to what is there, and changes nothing") {
    Tree tree;
    make_golden(tree);
    const std::uint64_t digest = tree.digest();
    CHECK(save(tree, "before") == "before" + unhex(golden_tree));
    CHECK(!tree.is_saving());
    CHECK(tree.digest() == digest);
    tree.audit();
}

TEST_CASE("load: the order of the records means nothing") {
    Tree tree;
    make_golden(tree);
    std::vector<Bytes> records = sorted(tree);
    REQUIRE(records.size() == 6);
    int orders = 0;
    do {
        Bytes bytes;
        for (const Bytes& record : records) bytes += record;
        Tree other;
        REQUIRE(load(other, bytes) == Errc::ok);
        other.audit();
        REQUIRE(other.digest() == tree.digest());
        REQUIRE(children(other, "/") == std::vector<Bytes>{"a", "zookeeper"});
        orders += 1;
    } while (std::next_permutation(records.begin(), records.end()));
    CHECK(orders == 720);
}

// Names that differ late or early, that begin like others, and that are long.
TEST_CASE("load: families in any order, whatever their names begin with") {
    coord::Rng rng{support::seed_or(11)};
    Tree tree;
    std::vector<Bytes> parents{""};
    for (int family = 0; family < 40; family++) {
        const Bytes parent = parents[rng.below(parents.size())] + "/f" + std::to_string(family);
        REQUIRE(create(tree, parent) == Errc::ok);
        parents.push_back(parent);
        const Bytes begin(rng.below(12), 'n');
        const std::uint64_t sizes = 1 + rng.below(20);
        for (std::uint64_t i = rng.below(80); i > 0; i--) {
            Bytes name = begin;
            for (std::uint64_t n = 1 + rng.below(sizes); n > 0; n--) {
                name += rng.chance(500) ? "a" : "\xC3\xA4";
            }
            (void)create(tree, parent + "/" + name);
        }
    }
    tree.audit();
    for (int order = 0; order < 30; order++) {
        std::vector<Bytes> records = sorted(tree);
        const std::size_t kept = order < 10 ? 0 : records.size() / 2;  // the rest is in order
        for (std::size_t i = records.size(); i > kept + 1; i--) {
            std::swap(records[i - 1], records[kept + rng.below(i - kept)]);
        }
        Bytes bytes;
        for (const Bytes& record : records) bytes += record;
        Tree other(rng.next());
        REQUIRE(load(other, bytes) == Errc::ok);
        other.audit();
        REQUIRE(other.digest() == tree.digest());
        for (const Bytes& parent : parents) {
            REQUIRE(children(other, parent) == children(tree, parent));
            REQUIRE(create(other, parent + "/last") == Errc::ok);  // there is room, and a place
        }
        other.audit();
        bytes += records[rng.below(records.size())];
        REQUIRE(load(other, bytes) == Errc::corrupt);  // one of them twice
    }
}

TEST_CASE("load: a record of a node is taken alone where its digest is, and adds that") {
    Tree tree;
    make_golden_kinds(tree);
    std::uint64_t sum = 0;
    std::size_t same = 0;
    for (const Bytes& whole : sorted(tree)) {
        const Bytes record = whole.substr(5);
        std::uint64_t digest = 0;
        REQUIRE(Tree::digest_of_record(record, {}, digest));
        sum += digest;
        for (std::size_t i = 0; i < record.size(); i++) {
            for (const int flip : {1, 0x80, 0xff}) {
                Bytes changed = record;
                changed[i] = static_cast<char>(changed[i] ^ flip);
                Tree other;
                other.begin_load();
                const bool loaded = other.load_node(changed, {});
                std::uint64_t of_changed = 0;
                REQUIRE(loaded == Tree::digest_of_record(changed, {}, of_changed));
                if (loaded) REQUIRE(other.digest() == of_changed);
                if (loaded) REQUIRE(of_changed != digest);
                same += loaded ? 1 : 0;
                other.reset();
            }
        }
        for (std::size_t size = 0; size < record.size(); size++) {
            std::uint64_t cut = 0;
            REQUIRE(!Tree::digest_of_record(BytesView{record}.substr(0, size), {}, cut));
        }
        REQUIRE(!Tree::digest_of_record(record + "x", {}, digest));
    }
    CHECK(sum == tree.digest());
    CHECK(same > 500);
}

// What comes and goes between a load and the first look at an order, in large families and small
// ones, beside a tree that was never loaded.
TEST_CASE("T12 load: the order of a node's children is left out until somebody asks for it") {
    coord::Rng rng{support::seed_or(12)};
    for (int round = 0; round < 60; round++) {
        Tree plain{rng.next()}, other{rng.next()};
        std::uint64_t zxid = 1;
        const auto change = [&](const std::vector<Tree*>& trees) {
            const Bytes parent = rng.chance(300) ? "" : "/p" + std::to_string(rng.below(3));
            const Bytes path = parent + "/p" + std::to_string(rng.below(40));
            const std::uint64_t dice = rng.below(1000);
            const auto mode = static_cast<CreateMode>(rng.below(2));
            const SessionId owner{1 + rng.below(2)};
            const bool goes_back = rng.chance(200);
            zxid += 1;
            std::vector<Errc> errors;
            for (Tree* const tree : trees) {
                Bytes made;
                if (goes_back) tree->begin_undo();
                if (dice < 600) {
                    errors.push_back(create(*tree, path, mode, "d", zxid, 1, owner, made));
                } else if (dice < 900) {
                    errors.push_back(tree->remove(path, any_version, Zxid{zxid}));
                } else {
                    errors.push_back(tree->set(path, "longer data", any_version, Zxid{zxid}, 2));
                }
                if (goes_back) tree->end_undo(true);
            }
            REQUIRE(errors.front() == errors.back());
        };
        for (std::uint64_t i = rng.below(200); i > 0; i--) change({&plain});
        REQUIRE(load(other, save(plain)) == Errc::ok);
        CHECK_FALSE(other.is_in_order());
        for (std::uint64_t i = rng.below(200); i > 0; i--) {
            change({&plain, &other});
            std::vector<Bytes> names;
            if (rng.chance(20)) (void)other.children("/p1", "", SIZE_MAX, names);
            if (rng.chance(200)) other.audit();
        }
        CHECK_FALSE(other.is_in_order());
        REQUIRE(sorted(other) == sorted(plain));
        REQUIRE(other.owned(SessionId{1}) == plain.owned(SessionId{1}));
        const int kind = round % 5;  // of the first look
        std::size_t seen = 0;
        if (kind == 4) other.visit([&](const coord::NodeView&) { seen += 1; });
        if (kind == 4) REQUIRE(seen == other.size());
        if (kind == 0) REQUIRE(children(other, "/") == children(plain, "/"));
        if (kind == 1) REQUIRE(*other.descendants("/zookeeper", 9) == 2);
        if (kind == 2) other.put_in_order();
        CHECK(other.is_in_order() == (kind == 2 || kind == 4));  // of all, or of some
        for (std::uint64_t i = rng.below(100); i > 0; i--) change({&plain, &other});
        std::vector<Bytes> ours, theirs;
        other.visit([&](const coord::NodeView& node) { ours.emplace_back(node.path); });
        plain.visit([&](const coord::NodeView& node) { theirs.emplace_back(node.path); });
        REQUIRE(ours == theirs);
        REQUIRE(other.digest() == plain.digest());
        other.audit(), plain.audit();
    }
}

TEST_CASE("T12 load: a chain that its last child leaves is none") {
    Tree tree, other;
    for (const char* const path : {"/a", "/a/1", "/a/2", "/a/3"}) {
        REQUIRE(create(tree, path) == Errc::ok);
    }
    for (int order = 0; order < 3; order++) {
        REQUIRE(load(other, save(tree)) == Errc::ok);
        for (int i = 0; i < 3; i++) {
            const Bytes path = "/a/" + std::to_string((order + i) % 3 + 1);
            REQUIRE(other.remove(path, any_version, Zxid{9}) == Errc::ok);
            other.audit();
        }
        REQUIRE(create(other, "/a/4") == Errc::ok);
        other.audit();
        CHECK_FALSE(other.is_in_order());  // of the root's it is left out
        CHECK(children(other, "/") == std::vector<Bytes>{"a", "zookeeper"});
        CHECK(children(other, "/a") == std::vector<Bytes>{"4"});
        CHECK(children(other, "/zookeeper") == std::vector<Bytes>{"config", "quota"});
        CHECK(other.is_in_order());
    }
}

TEST_CASE("load: a fresh tree") {
    Tree tree, other;
    REQUIRE(create(other, "/x") == Errc::ok);
    REQUIRE(load(other, save(tree)) == Errc::ok);
    CHECK(other.digest() == tree.digest());
}

TEST_CASE("load: every truncation is corrupt and leaves a fresh tree") {
    const Bytes bytes = unhex(golden_tree);
    const Tree fresh;
    for (std::size_t size = 0; size < bytes.size(); size++) {
        Tree tree;
        make_golden(tree);
        REQUIRE(load(tree, BytesView{bytes}.substr(0, size)) == Errc::corrupt);
        REQUIRE(tree.digest() == fresh.digest());
        REQUIRE(tree.size() == 4);
    }
}

TEST_CASE("load: every byte changed in every way is corrupt, or a tree that holds together") {
    Tree tree;
    make_golden_kinds(tree);
    const Bytes bytes = save(tree);
    int good = 0;
    for (std::size_t i = 0; i < bytes.size(); i++) {
        for (int flip = 1; flip < 256; flip++) {
            Bytes changed = bytes;
            changed[i] = static_cast<char>(changed[i] ^ flip);
            const Errc error = load(tree, changed);
            REQUIRE((error == Errc::ok || error == Errc::corrupt));
            if (error == Errc::ok) {
                REQUIRE(sorted(tree) == support::sorted_records(changed));
                good += 1;
            } else {
                REQUIRE(tree.size() == 4);
            }
            if (flip % 16 == 1) tree.audit();
        }
    }
    CHECK(good > 50000);
}

TEST_CASE("load: random damage of a larger tree") {
    Tree tree;
    coord::Rng rng{support::seed_or(10)};
    std::vector<Bytes> paths{""};
    for (int i = 0; i < 60; i++) {
        const Bytes path = paths[rng.below(paths.size())] + "/" + std::to_string(rng.below(50));
        if (create(tree, path) == Errc::ok) paths.push_back(path);
    }
    const Bytes bytes = save(tree);
    for (int i = 0; i < 20000; i++) {
        Bytes changed = bytes;
        for (std::uint64_t n = 1 + rng.below(3); n > 0; n--) {
            const std::size_t at = rng.below(changed.size());
            switch (rng.below(4)) {
                case 0: changed[at] = static_cast<char>(rng.next()); break;
                case 1: changed.erase(at, 1 + rng.below(90)); break;
                case 2: changed.insert(at, bytes, rng.below(bytes.size()), rng.below(90)); break;
                default: changed[at] = static_cast<char>(rng.below(4)); break;
            }
            if (changed.empty()) changed = bytes;
        }
        Tree other;
        (void)load(other, changed);
        if (i % 20 == 0) other.audit();
    }
}

TEST_CASE("load: what holds together is taken, by hand too") {
    const auto root = [](std::uint32_t children, std::uint64_t creations) {
        return HandWritten{}.built_in().node("/", children, creations);
    };
    CHECK(root(1, 0).load() == Errc::ok);
    CHECK(root(3, 2).node("/a", 0, 0).node("/b", 0, 0).load() == Errc::ok);
    CHECK(root(3, 2).node("/b", 0, 0).node("/a", 0, 0).load() == Errc::ok);
    CHECK(root(2, 1).node("/a/b", 0, 0).node("/a", 1, 1).load() == Errc::ok);
    CHECK(root(2, 9).node("/a", 0, 9).load() == Errc::ok);
    CHECK(root(2, 1).node("/a", 0, 0, 1).load() == Errc::ok);
}

TEST_CASE("load: each rule, broken by hand") {
    const auto root = [](std::uint32_t children, std::uint64_t creations) {
        return HandWritten{}.node("/", children, creations).built_in();
    };
    SUBCASE("a child twice") {
        CHECK(root(3, 2).node("/a", 0, 0).node("/a", 0, 0).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 0, 0).node("/a", 0, 0).load() == Errc::corrupt);
    }
    SUBCASE("the root twice, or not at all") {
        CHECK(root(1, 0).node("/", 1, 0).load() == Errc::corrupt);
        CHECK(HandWritten{}.node("/", 1, 0).node("/", 1, 0).built_in().load() == Errc::corrupt);
        CHECK(HandWritten{}.built_in().load() == Errc::corrupt);
        CHECK(HandWritten{}.built_in().node("/a", 0, 0).load() == Errc::corrupt);
    }
    SUBCASE("more children than there are nodes") {
        CHECK(root(2, 1).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 1, 1).load() == Errc::corrupt);
    }
    SUBCASE("fewer") {
        CHECK(root(1, 1).node("/a", 0, 0).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 0, 1).node("/a/b", 0, 0).load() == Errc::corrupt);
    }
    SUBCASE("as many in all, but not each its own") {
        CHECK(root(3, 2).node("/a", 1, 1).node("/b", 0, 1).node("/b/c", 0, 0).load() ==
              Errc::corrupt);
        CHECK(root(3, 2).node("/a", 0, 1).node("/b", 1, 1).node("/b/c", 0, 0).load() == Errc::ok);
    }
    SUBCASE("a parent that is missing") {
        CHECK(root(1, 0).node("/a/b", 0, 0).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 0, 0).node("/b/c", 0, 0).load() == Errc::corrupt);
    }
    SUBCASE("names that no path may have") {
        for (const char* const path : {"", "a", "//", "/.", "/..", "/a/", "//a", "/\x01", "/\x7F",
                                       "/\xFF", "/\xC3"}) {
            CAPTURE(path);
            CHECK(root(2, 1).node(path, 0, 0).load() == Errc::corrupt);
        }
    }
    SUBCASE("an ephemeral node with a child, or that had one") {
        CHECK(root(2, 1).node("/a", 1, 1, 7).node("/a/b", 0, 0).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 1, 0, 7).node("/a/b", 0, 0).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 0, 1, 7).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a/b", 0, 0).node("/a", 0, 0, 7).load() == Errc::corrupt);
    }
    SUBCASE("a built-in node that is ephemeral") {
        CHECK(HandWritten{}
                  .node("/", 1, 0)
                  .node("/zookeeper", 2, 0)
                  .node("/zookeeper/config", 0, 0, 7)
                  .node("/zookeeper/quota", 0, 0)
                  .load() == Errc::corrupt);
        CHECK(HandWritten{}.node("/", 1, 0, 7).built_in().load() == Errc::corrupt);
    }
    SUBCASE("T7 a kind that there is not, or not with that owner or that ttl") {
        const std::int64_t most = coord::ttl_ms_max;
        const auto kind = [&](std::uint64_t owner, int number, std::optional<std::int64_t> ttl_ms) {
            return root(2, 1).node("/a", 0, 0, owner, number, ttl_ms).load();
        };
        CHECK(kind(0, 0, {}) == Errc::ok);
        CHECK(kind(0, 1, {}) == Errc::corrupt);
        CHECK(kind(7, 1, {}) == Errc::ok);
        CHECK(kind(7, 0, {}) == Errc::corrupt);
        CHECK(kind(0, 2, {}) == Errc::ok);
        CHECK(kind(7, 2, {}) == Errc::corrupt);
        CHECK(kind(0, 3, 1) == Errc::ok);
        CHECK(kind(7, 3, 1) == Errc::corrupt);
        CHECK(kind(0, 3, most) == Errc::ok);
        CHECK(kind(0, 3, most + 1) == Errc::corrupt);
        CHECK(kind(0, 3, 0) == Errc::corrupt);
        CHECK(kind(0, 3, -1) == Errc::corrupt);
        CHECK(kind(0, 3, {}) == Errc::corrupt);
        for (const int number : {0, 2, 4, 131, 255}) CHECK(kind(0, number, 1) == Errc::corrupt);
        for (const int number : {4, 5, 127, 128, 130, 255}) {
            CHECK(kind(0, number, {}) == Errc::corrupt);
        }
    }
    SUBCASE("a built-in node that goes by itself") {
        CHECK(HandWritten{}.node("/", 1, 0, 0, 2, {}).built_in().load() == Errc::corrupt);
        CHECK(HandWritten{}.node("/", 1, 0, 0, 3, 1).built_in().load() == Errc::corrupt);
        CHECK(HandWritten{}
                  .node("/", 1, 0)
                  .node("/zookeeper", 2, 0)
                  .node("/zookeeper/config", 0, 0, 0, 2, {})
                  .node("/zookeeper/quota", 0, 0)
                  .load() == Errc::corrupt);
    }
    SUBCASE("more children than creations") {
        CHECK(root(2, 0).node("/a", 0, 0).load() == Errc::corrupt);
        CHECK(root(2, 1).node("/a", 1, 0).node("/a/b", 0, 0).load() == Errc::corrupt);
    }
    SUBCASE("a built-in node that is missing") {
        HandWritten none;
        CHECK(none.load() == Errc::corrupt);
        CHECK(none.node("/", 0, 0).load() == Errc::corrupt);
        none = HandWritten{}.node("/", 1, 0).node("/zookeeper", 0, 0);
        CHECK(none.load() == Errc::corrupt);
        for (const char* const path : {"/zookeeper/config", "/zookeeper/quota"}) {
            none = HandWritten{}.node("/", 1, 0).node("/zookeeper", 1, 0).node(path, 0, 0);
            CHECK(none.load() == Errc::corrupt);
        }
    }
    SUBCASE("a count of children that nothing follows") {
        CHECK(root(UINT32_MAX, UINT32_MAX).load() == Errc::corrupt);
    }
}

TEST_CASE("load: what a length promises is there, or the record is refused") {
    const Bytes record = unhex(golden_tree).substr(5, 0x4e);
    std::uint64_t digest = 0;
    REQUIRE(Tree::digest_of_record(record, {}, digest));
    for (const std::size_t at : {std::size_t{0}, std::size_t{5}}) {  // of the path, of the data
        for (const std::uint32_t length : {2u, 64u, 69u, 70u, 1u << 20, 0x7fffffffu, UINT32_MAX}) {
            Bytes changed = record;
            coord::Writer{changed}.patch_u32(at, length);
            CHECK(Tree::digest_of_record(changed, {}, digest) ==
                  (length == UINT32_MAX && at == 5));  // null
        }
    }
}

TEST_CASE("load: numbers that would overflow later") {
    Tree tree;
    REQUIRE(create(tree, "/a") == Errc::ok);
    const Bytes bytes = save(tree);
    const auto patched = [&](BytesView path, std::size_t field, std::uint64_t value) {
        Bytes changed = bytes;
        patch_u64(changed, path, field, value);
        return load(tree, changed);
    };
    const std::uint64_t most = std::uint64_t{1} << 61;
    CHECK(patched("/", creations_field, most) == Errc::ok);
    CHECK(patched("/", creations_field, most + 1) == Errc::corrupt);
    CHECK(patched("/", creations_field, UINT64_MAX) == Errc::corrupt);
    CHECK(patched("/a", creations_field, most) == Errc::ok);
    CHECK(create(tree, "/a/more") == Errc::too_many);
    CHECK(patched("/a", creations_field, most - 1) == Errc::ok);
    CHECK(create_sequential(tree, "/a/") == "/a/2305843009213693951");
    CHECK(stat(tree, "/a").cversion == (std::int64_t{1} << 62) - 1);
    CHECK(create(tree, "/a/more") == Errc::too_many);
    CHECK(patched("/a", owner_field, 7) == Errc::corrupt);  // its kind says otherwise
    Bytes any = bytes;
    patch(any, "/a", version_field, UINT32_MAX);
    CHECK(load(tree, any) == Errc::corrupt);
    any = bytes;
    patch(any, "/", children_field, 3);
    CHECK(load(tree, any) == Errc::corrupt);
    any = bytes;
    patch(any, "/a", children_field, 1);
    CHECK(load(tree, any) == Errc::corrupt);
}

TEST_CASE("load: limits, one below and one above") {
    Tree tree, other;
    const Bytes name(97, 'n');
    REQUIRE(create(tree, "/a") == Errc::ok);
    REQUIRE(create(tree, "/a/" + name) == Errc::ok);
    REQUIRE(tree.set("/a", Bytes(50, 'd'), any_version, Zxid{1}, 1) == Errc::ok);
    const Bytes bytes = save(tree);
    coord::Limits limits;
    limits.nodes_max = 6;
    CHECK(load(other, bytes, limits) == Errc::ok);
    limits.nodes_max = 5;
    CHECK(load(other, bytes, limits) == Errc::corrupt);
    limits = {};
    limits.data_bytes_max = 50;
    CHECK(load(other, bytes, limits) == Errc::ok);
    limits.data_bytes_max = 49;
    CHECK(load(other, bytes, limits) == Errc::corrupt);
    limits = {};
    limits.path_bytes_max = 100;
    CHECK(load(other, bytes, limits) == Errc::ok);
    limits.path_bytes_max = 81;  // a sequence number may have taken it over the limit
    CHECK(load(other, bytes, limits) == Errc::ok);
    limits.path_bytes_max = 80;
    CHECK(load(other, bytes, limits) == Errc::corrupt);
    limits = {};
    limits.nodes_max = 0;  // the built-in nodes are always allowed
    Tree fresh;
    CHECK(load(other, save(fresh), limits) == Errc::ok);
}

TEST_CASE("load: a chain as deep as paths are long") {
    Tree tree, other;
    Bytes path;
    for (int depth = 0; depth < 512; depth++) {
        path += "/d";
        REQUIRE(create(tree, path) == Errc::ok);
    }
    tree.audit();
    REQUIRE(load(other, save(tree)) == Errc::ok);
    CHECK(other.digest() == tree.digest());
    CHECK(other.contains(path));
    other.audit();
    // One deeper than the limit allows, though every name is short.
    HandWritten endless;
    endless.node("/", 2, 1).built_in();
    Bytes deep;
    for (int depth = 0; depth < 600; depth++) endless.node(deep += "/d", depth < 599, depth < 599);
    CHECK(endless.load() == Errc::corrupt);
    for (; path.size() > 2; path.resize(path.size() - 2)) REQUIRE(remove(tree, path) == Errc::ok);
    tree.audit();
}

// ---- A save in slices

namespace {

// A small tree with two indices that nobody has: one between others, one behind most.
void make_sliced(Tree& tree) {
    Bytes made;
    std::uint64_t zxid = 1;
    for (const char* const path : {"/1", "/a", "/a/b", "/c", "/2", "/z"}) {
        REQUIRE(create(tree, path, CreateMode::persistent, path, zxid, 5, {}, made) == Errc::ok);
        zxid += 1;
    }
    REQUIRE(create(tree, "/e", CreateMode::ephemeral, "e", zxid, 5, SessionId{7}, made) ==
            Errc::ok);
    create_with_ttl(tree, "/t", 9);
    REQUIRE(remove(tree, "/1") == Errc::ok);
    REQUIRE(remove(tree, "/2") == Errc::ok);
}

struct Change {
    std::string what;
    void (*make)(Tree& tree, std::uint64_t zxid);
};

void put(Tree& tree, const char* path, BytesView value, std::uint64_t zxid) {
    (void)tree.set(path, value, any_version, Zxid{zxid}, 77);
}

void add(Tree& tree, const char* path, std::uint64_t zxid, BytesView value = "added") {
    Bytes made;
    (void)create(tree, path, CreateMode::persistent, value, zxid, 77, {}, made);
}

void drop(Tree& tree, const char* path, std::uint64_t zxid) {
    (void)tree.remove(path, any_version, Zxid{zxid});
}

// Where a change meets another that made it impossible, it fails: on the twin as well.
const Change changes[] = {
    {"nothing", [](Tree&, std::uint64_t) {}},
    {"create", [](Tree& tree, std::uint64_t zxid) { add(tree, "/new", zxid); }},
    {"three creates: both free indices, and one more",
     [](Tree& tree, std::uint64_t zxid) {
         add(tree, "/n1", zxid), add(tree, "/n2", zxid), add(tree, "/n3", zxid);
     }},
    {"create below a node",
     [](Tree& tree, std::uint64_t zxid) { add(tree, "/a/d", zxid), add(tree, "/a/d/e", zxid); }},
    {"create and set", [](Tree& tree, std::uint64_t zxid) {
         add(tree, "/new", zxid), put(tree, "/new", "changed", zxid);
     }},
    {"create and remove", [](Tree& tree, std::uint64_t zxid) {
         add(tree, "/new", zxid), drop(tree, "/new", zxid);
     }},
    {"set in its place", [](Tree& tree, std::uint64_t zxid) { put(tree, "/a", "/x", zxid); }},
    {"set that moves", [](Tree& tree, std::uint64_t zxid) {
         put(tree, "/a/b", Bytes(300, 'm'), zxid);
     }},
    {"set twice", [](Tree& tree, std::uint64_t zxid) {
         put(tree, "/c", "once", zxid), put(tree, "/c", "twice", zxid);
     }},
    {"set of the root", [](Tree& tree, std::uint64_t zxid) { put(tree, "/", "root", zxid); }},
    {"set that fails", [](Tree& tree, std::uint64_t zxid) {
         (void)tree.set("/a", "never", 99, Zxid{zxid}, 77);
     }},
    {"remove", [](Tree& tree, std::uint64_t zxid) { drop(tree, "/c", zxid); }},
    {"remove of a child", [](Tree& tree, std::uint64_t zxid) { drop(tree, "/a/b", zxid); }},
    {"remove of an ephemeral", [](Tree& tree, std::uint64_t zxid) { drop(tree, "/e", zxid); }},
    {"reap", [](Tree& tree, std::uint64_t zxid) {
         (void)tree.reap("/t", Zxid{1}, Zxid{zxid}, 77);
     }},
    {"reap, and a container in its place", [](Tree& tree, std::uint64_t zxid) {
         Bytes made;
         (void)tree.reap("/t", Zxid{1}, Zxid{zxid}, 77);
         (void)create(tree, "/t", CreateMode::container, "c", zxid, 77, {}, made);
     }},
    {"remove and create again", [](Tree& tree, std::uint64_t zxid) {
         drop(tree, "/z", zxid), add(tree, "/z", zxid);
     }},
    {"remove, and another in its place", [](Tree& tree, std::uint64_t zxid) {
         drop(tree, "/c", zxid), add(tree, "/d", zxid), put(tree, "/d", "new", zxid);
     }},
};

// What becomes of a tree that nobody saves meanwhile.
struct Twin {
    std::uint64_t digest = 0;
    std::vector<Bytes> records;

    Twin(const Change& first, const Change& second) {
        Tree tree;
        make_sliced(tree);
        first.make(tree, 100), second.make(tree, 101);
        digest = tree.digest();
        records = sorted(tree);
    }
};

// Saves in slices of `bytes`; before the slices of the two numbers the changes are made. RETURNS
// how many slices there were.
std::size_t save_around(Tree& tree, std::size_t bytes, Bytes& out, std::size_t first_at,
                        const Change& first, std::size_t second_at, const Change& second) {
    std::size_t slices = 0;
    tree.begin_save();
    for (bool done = false; !done; slices++) {
        if (slices == first_at) first.make(tree, 100);
        if (slices == second_at) second.make(tree, 101);
        done = tree.save_slice(bytes, out);
        REQUIRE(tree.is_saving() == !done);
    }
    return slices;
}

}  // namespace

TEST_CASE("faults S9 (T5): save: every pair of changes between any two nodes") {
    Tree tree;
    make_sliced(tree);
    const std::vector<Bytes> before = sorted(tree);
    Bytes plain;
    const Change& none = changes[0];
    const std::size_t slices = save_around(tree, 1, plain, 0, none, 0, none);
    CHECK(slices == 12);  // one for each index, free ones too
    for (const Change& first : changes) {
        for (const Change& second : changes) {
            const Twin twin(first, second);
            for (std::size_t i = 0; i < slices; i++) {
                for (std::size_t j = i; j < slices; j++) {
                    Tree live;
                    Bytes out;
                    make_sliced(live);
                    CAPTURE(first.what);
                    CAPTURE(second.what);
                    CAPTURE(i);
                    CAPTURE(j);
                    REQUIRE(save_around(live, 1, out, i, first, j, second) == slices);
                    REQUIRE(support::sorted_records(out) == before);
                    REQUIRE(live.digest() == twin.digest);
                    if (i == j) REQUIRE(sorted(live) == twin.records);
                    if (i == j) live.audit();
                }
            }
        }
    }
}

TEST_CASE("faults S9 (T5): save: every change at every boundary of slices of every size") {
    Tree tree, loaded;
    make_sliced(tree);
    const std::uint64_t digest = tree.digest();
    const std::vector<Bytes> before = sorted(tree);
    std::size_t slicings = 0, last_slices = 0;
    for (std::size_t bytes = 1; last_slices != 1; bytes++) {
        Bytes plain;
        const std::size_t slices =
            save_around(tree, bytes, plain, 0, changes[0], 0, changes[0]);
        slicings += slices != last_slices ? 1 : 0;
        last_slices = slices;
        for (const Change& change : changes) {
            for (std::size_t i = 0; i < slices; i++) {
                Tree live;
                Bytes out;
                make_sliced(live);
                CAPTURE(bytes);
                CAPTURE(change.what);
                CAPTURE(i);
                save_around(live, bytes, out, i, change, SIZE_MAX, change);
                REQUIRE(support::sorted_records(out) == before);
                REQUIRE(load(loaded, out) == Errc::ok);
                REQUIRE(loaded.digest() == digest);
            }
        }
    }
    CHECK(slicings > 5);
    loaded.audit();
}

TEST_CASE("T5 save: begun anew at every boundary, it is the tree as it is then") {
    for (const Change& change : changes) {
        const Twin twin(change, changes[0]);
        for (std::size_t i = 0; i <= 10; i++) {
            Tree live;
            Bytes given_up, out;
            make_sliced(live);
            live.begin_save();
            for (std::size_t slice = 0; slice < i; slice++) {
                REQUIRE(!live.save_slice(1, given_up));
            }
            change.make(live, 100);
            if (i % 2 == 0) live.stop_saving();
            live.begin_save();
            changes[i % 5 + 1].make(live, 101);
            while (!live.save_slice(1, out)) {
            }
            CAPTURE(change.what);
            CAPTURE(i);
            REQUIRE(support::sorted_records(out) == twin.records);
            live.audit();
        }
    }
}

TEST_CASE("save: given up, reset or loaded over, it leaves nothing behind") {
    Tree tree, other;
    make_sliced(tree);
    const std::vector<Bytes> records = sorted(tree);
    const Bytes bytes = save(tree);
    Bytes out;
    for (int how = 0; how < 3; how++) {
        REQUIRE(load(other, bytes) == Errc::ok);
        other.begin_save();
        REQUIRE(!other.save_slice(1, out));
        put(other, "/z", "changed", 100);
        if (how == 0) other.stop_saving();
        if (how == 1) other.reset();
        if (how == 2) REQUIRE(load(other, bytes) == Errc::ok);
        CHECK(!other.is_saving());
        other.audit();
        REQUIRE(load(other, bytes) == Errc::ok);
        CHECK(sorted(other) == records);
    }
}

TEST_CASE("save: a slice of nothing gives what has changed, and no more") {
    Tree tree;
    make_sliced(tree);
    Bytes out;
    tree.begin_save();
    REQUIRE(!tree.save_slice(0, out));
    CHECK(out.empty());
    put(tree, "/c", "changed", 100);
    put(tree, "/c", "again", 101);
    REQUIRE(!tree.save_slice(0, out));
    CHECK(support::sorted_records(out).size() == 1);
}

TEST_CASE("save: many free indices are not passed in one slice") {
    Tree tree;
    for (int i = 0; i < 40000; i++) REQUIRE(create(tree, "/" + std::to_string(i)) == Errc::ok);
    for (int i = 0; i < 40000; i++) REQUIRE(remove(tree, "/" + std::to_string(i)) == Errc::ok);
    Bytes out;
    std::size_t slices = 1;
    tree.begin_save();
    while (!tree.save_slice(65536, out)) slices += 1;
    CHECK(slices == 3);
    CHECK(support::sorted_records(out).size() == 4);
}

// ---- Many nodes

TEST_CASE("many: a large flat family, built, listed, halved, saved and loaded") {
    Tree tree{support::seed_or(11)}, other{12};
    REQUIRE(create(tree, "/p") == Errc::ok);
    const std::uint64_t count = 20000;
    for (std::uint64_t i = 0; i < count; i++) {
        REQUIRE(create_sequential(tree, "/p/n-").size() == 15);
    }
    tree.audit();
    for (std::uint64_t i = 0; i < count; i += 2) {
        Bytes name = std::to_string(i);
        name.insert(0, 10 - name.size(), '0');
        REQUIRE(remove(tree, "/p/n-" + name) == Errc::ok);
        REQUIRE(!tree.contains("/p/n-" + name));
    }
    tree.audit();
    CHECK(children(tree, "/p").size() == count / 2);
    CHECK(children(tree, "/p", "", 1)[0] == "n-0000000001");
    CHECK(stat(tree, "/p").cversion == static_cast<std::int64_t>(count + count / 2));
    REQUIRE(load(other, save(tree)) == Errc::ok);
    other.audit();
    CHECK(other.digest() == tree.digest());
    for (const Bytes& name : children(tree, "/p")) REQUIRE(remove(tree, "/p/" + name) == Errc::ok);
    tree.audit();
    CHECK(tree.size() == 5);
}

TEST_CASE("many: trees of any seed behave alike") {
    std::vector<Bytes> saved;
    for (std::uint64_t seed = 0; seed < 20; seed++) {
        Tree tree{seed};
        for (int i = 0; i < 300; i++) {
            const Bytes path = "/" + std::to_string(i * 7919 % 300);
            REQUIRE(create(tree, path) == Errc::ok);
            if (i % 3 == 0) REQUIRE(remove(tree, path) == Errc::ok);
        }
        tree.audit();
        const std::vector<Bytes> records = sorted(tree);
        if (seed > 0) CHECK(records == saved);
        saved = records;
    }
}

TEST_CASE("many: a tree that comes and goes does not grow") {
    Tree tree;
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 200; i++) REQUIRE(create(tree, "/" + std::to_string(i)) == Errc::ok);
        for (int i = 0; i < 200; i++) REQUIRE(remove(tree, "/" + std::to_string(i)) == Errc::ok);
    }
    tree.audit();  // among other things: nodes in use and free are all there ever were
    CHECK(tree.size() == 4);
    tree.reset();
    tree.audit();
    CHECK(stat(tree, "/").cversion == -1);
}

// ---- Against a model

namespace {

// The semantics once more, as plainly as they can be said: nodes in a std::map by path.
class Model {
public:
    struct Entry {
        Bytes data;
        bool is_null = false;
        Stat stat;
        std::int64_t creations = 0;
        CreateMode mode = CreateMode::persistent;
        std::int64_t ttl_ms = 0;
    };

    Model() {
        for (const char* const path :
             {"/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"}) {
            nodes[path];
        }
        nodes["/"].stat.num_children = 1;
        nodes["/zookeeper"].stat.num_children = 2;
        nodes["/zookeeper/config"].stat.aversion = -1;
    }

    Errc create(const Bytes& path, CreateMode mode, BytesView data, SessionId owner, Zxid zxid,
                std::int64_t time_ms, Bytes& made, std::int64_t ttl_ms) {
        const std::size_t slash = path.rfind('/');
        if (slash == Bytes::npos || path.find('\0') != Bytes::npos) return Errc::bad_arguments;
        const Bytes parent_path = path.substr(0, slash);
        const auto parent = nodes.find(parent_path.empty() ? "/" : parent_path);
        if (parent == nodes.end()) return Errc::no_node;
        made = path;
        if (coord::is_sequential(mode)) {
            Bytes digits = std::to_string(parent->second.creations);
            if (digits.size() < 10) digits.insert(0, 10 - digits.size(), '0');
            made += digits;
        }
        if (!coord::is_valid_path(made)) return Errc::bad_arguments;
        if (nodes.count(made) > 0) return Errc::node_exists;
        if (parent->second.stat.ephemeral_owner != SessionId{}) {
            return Errc::no_children_for_ephemerals;
        }
        Entry& entry = nodes[made];
        entry.data = data, entry.is_null = coord::is_null(data);
        entry.stat.czxid = entry.stat.mzxid = entry.stat.pzxid = zxid;
        entry.stat.ctime_ms = entry.stat.mtime_ms = time_ms;
        if (coord::is_ephemeral(mode)) entry.stat.ephemeral_owner = owner;
        entry.mode = mode, entry.ttl_ms = ttl_ms;
        parent->second.creations += 1;
        parent->second.stat.num_children += 1;
        parent->second.stat.pzxid = zxid;
        return Errc::ok;
    }

    Errc remove(const Bytes& path, std::int32_t version, Zxid zxid) {
        if (path.find('/') == Bytes::npos || path == "/" || path == "/zookeeper" ||
            path == "/zookeeper/config" || path == "/zookeeper/quota") {
            return Errc::bad_arguments;
        }
        const auto found = nodes.find(path);
        if (found == nodes.end()) return Errc::no_node;
        if (version != -1 && version != found->second.stat.version) return Errc::bad_version;
        if (found->second.stat.num_children > 0) return Errc::not_empty;
        nodes.erase(found);
        Entry& parent = nodes[Bytes{coord::parent_path(path)}];
        parent.stat.num_children -= 1;
        parent.stat.pzxid = zxid;
        return Errc::ok;
    }

    bool goes_by_itself(const Entry& entry) const {
        return entry.mode == CreateMode::container || entry.ttl_ms > 0;
    }
    bool is_due(const Entry& entry, std::int64_t time_ms) const {
        if (!goes_by_itself(entry) || entry.stat.num_children > 0) return false;
        if (entry.mode == CreateMode::container) return entry.creations > 0;
        return time_ms - entry.stat.mtime_ms > entry.ttl_ms;
    }
    std::vector<Bytes> due(std::int64_t time_ms) const {
        std::vector<Bytes> paths;
        for (const auto& node : nodes) {
            if (is_due(node.second, time_ms)) paths.push_back(node.first);
        }
        return paths;
    }
    Errc reap(const Bytes& path, Zxid czxid, Zxid zxid, std::int64_t time_ms) {
        const auto found = nodes.find(path.empty() ? "/" : path);
        if (found == nodes.end() || found->second.stat.czxid != czxid) return Errc::no_node;
        if (!goes_by_itself(found->second)) return Errc::bad_version;
        if (found->second.stat.num_children > 0) return Errc::not_empty;
        if (!is_due(found->second, time_ms)) return Errc::bad_version;
        return remove(path, any_version, zxid);
    }

    Errc set(const Bytes& path, BytesView data, std::int32_t version, Zxid zxid,
             std::int64_t time_ms) {
        if (!coord::is_valid_path(path)) return Errc::bad_arguments;
        const auto found = nodes.find(path);
        if (found == nodes.end()) return Errc::no_node;
        Entry& entry = found->second;
        if (version != -1 && version != entry.stat.version) return Errc::bad_version;
        entry.data = data, entry.is_null = coord::is_null(data);
        entry.stat.version += 1;
        entry.stat.mzxid = zxid;
        entry.stat.mtime_ms = time_ms;
        return Errc::ok;
    }

    std::vector<Bytes> children(const Bytes& path) const {
        std::vector<Bytes> names;
        for (const auto& node : nodes) {
            if (node.first == "/" || coord::parent_path(node.first) != path) continue;
            names.emplace_back(coord::node_name(node.first));
        }
        std::sort(names.begin(), names.end());
        return names;
    }

    std::map<Bytes, Entry> nodes;
};

void compare(const Tree& tree, const Model& model) {
    tree.audit();
    REQUIRE(tree.size() == model.nodes.size());
    for (const auto& node : model.nodes) {
        CAPTURE(node.first);
        const auto found = tree.find(node.first);
        REQUIRE(found);
        const Stat& expected = node.second.stat;
        REQUIRE(found->path == node.first);
        REQUIRE(found->data == node.second.data);
        REQUIRE(coord::is_null(found->data) == node.second.is_null);
        REQUIRE(found->stat.czxid == expected.czxid);
        REQUIRE(found->stat.mzxid == expected.mzxid);
        REQUIRE(found->stat.pzxid == expected.pzxid);
        REQUIRE(found->stat.ctime_ms == expected.ctime_ms);
        REQUIRE(found->stat.mtime_ms == expected.mtime_ms);
        REQUIRE(found->stat.version == expected.version);
        REQUIRE(found->stat.aversion == expected.aversion);
        REQUIRE(found->stat.cversion == 2 * node.second.creations - expected.num_children);
        REQUIRE(found->stat.num_children == expected.num_children);
        REQUIRE(found->stat.ephemeral_owner == expected.ephemeral_owner);
        REQUIRE(found->stat.data_length == static_cast<std::int32_t>(node.second.data.size()));
        const auto life = tree.life(node.first);
        REQUIRE(life);
        REQUIRE(life->ttl_ms == node.second.ttl_ms);
        REQUIRE((life->kind == NodeKind::container) ==
                (node.second.mode == CreateMode::container));
    }
}

Bytes random_path(coord::Rng& rng) {
    static const char* const odd[] = {"",   "a",    "/",     "//",
                                      "/.", "/a/",  "/a//b", "/zookeeper/config"};
    if (rng.chance(20)) return odd[rng.below(sizeof odd / sizeof *odd)];
    Bytes path;
    for (std::uint64_t depth = 1 + rng.below(4); depth > 0; depth--) {
        path += "/n" + std::to_string(rng.below(12));
    }
    return path;
}

// RETURNS a path with a number, which sequential creates have made.
Bytes random_sequential_path(coord::Rng& rng) {
    Bytes digits = std::to_string(rng.below(200));
    digits.insert(0, 10 - digits.size(), '0');
    return random_path(rng) + digits;
}

}  // namespace

TEST_CASE("memory: a node that goes leaves its block to the next one of its size") {
    Tree tree;
    const auto name = [](std::size_t i, const char* prefix) {
        Bytes path = std::to_string(10000 + i);
        return path.insert(0, prefix);
    };
    for (std::size_t i = 0; i < 3000; i++) REQUIRE(create(tree, name(i, "/a")) == Errc::ok);
    CHECK(tree.spares() == 0);
    for (std::size_t i = 0; i < 3000; i++) REQUIRE(remove(tree, name(i, "/a")) == Errc::ok);
    CHECK(tree.spares() == 3000);
    for (std::size_t i = 0; i < 100; i++) REQUIRE(create(tree, name(i, "/b")) == Errc::ok);
    CHECK(tree.spares() == 2900);
    const Bytes larger(200, 'x');
    Bytes made;
    CHECK(create(tree, "/c", CreateMode::persistent, larger, 1, 1, {}, made) == Errc::ok);
    CHECK(tree.spares() == 2900);  // none is of that size
    CHECK(set(tree, "/c") == Errc::ok);
    CHECK(tree.spares() == 2901);  // and that one it has left
    tree.give_back(1000);
    CHECK(tree.spares() == 1901);
    tree.give_back(1000);
    tree.give_back(1000);
    CHECK(tree.spares() == 1024);
    CHECK(tree.contains("/b10099"));
    tree.audit();
}

TEST_CASE("T10 what a session owns, in order, from a path on, by a prefix") {
    Tree tree;
    const SessionId one{7}, two{8};
    Bytes made;
    const auto add = [&](const char* path, SessionId owner) {
        REQUIRE(create(tree, path, CreateMode::ephemeral, "", 1, 1, owner, made) == Errc::ok);
    };
    REQUIRE(create(tree, "/d") == Errc::ok);
    const char* const paths[] = {"/d/5", "/d/1", "/b", "/d/9", "/e", "/d/10", "/a", "/d/7"};
    for (const char* const path : paths) add(path, one);
    add("/d/2", two);
    using Paths = std::vector<Bytes>;
    const auto list = [&](SessionId owner, BytesView after, BytesView prefix, std::size_t limit) {
        Paths listed;
        tree.list_owned(owner, after, prefix, [&](const coord::NodeView& node) {
            listed.emplace_back(node.path);
            return listed.size() < limit;
        });
        return listed;
    };
    const Paths all{"/a", "/b", "/d/1", "/d/10", "/d/5", "/d/7", "/d/9", "/e"};
    CHECK(list(one, "", "", SIZE_MAX) == all);
    CHECK(list(one, "", "/d/", SIZE_MAX) == Paths{"/d/1", "/d/10", "/d/5", "/d/7", "/d/9"});
    CHECK(list(one, "/d/10", "/d/", 2) == Paths{"/d/5", "/d/7"});
    CHECK(list(one, "/a", "/d/1", SIZE_MAX) == Paths{"/d/1", "/d/10"});
    CHECK(list(one, "/z", "", SIZE_MAX).empty());
    CHECK(list(SessionId{9}, "", "", SIZE_MAX).empty());
    CHECK(list(two, "", "", SIZE_MAX) == Paths{"/d/2"});
    CHECK(tree.owned(one) == 8);
    CHECK(tree.owned_by_all() == 9);
    CHECK(remove(tree, "/d/5") == Errc::ok);
    CHECK(remove(tree, "/d/2") == Errc::ok);
    CHECK(list(one, "/d/10", "/d/", SIZE_MAX) == Paths{"/d/7", "/d/9"});
    CHECK(tree.owned(two) == 0);
    CHECK(tree.owned_by_all() == 7);
    CHECK(stat(tree, "/d/9").num_children == 0);
    CHECK(tree.descendants("/d/9", 10).value() == 0);
    CHECK(children(tree, "/d/9").empty());
    tree.audit();
}

TEST_CASE("model: 200,000 random operations") {
    coord::Rng rng{support::seed_or(13)};
    Tree tree{rng.next()};
    Model model;
    std::map<Errc, int> outcomes;
    int reaped = 0;
    for (std::uint64_t i = 1; i <= 200000; i++) {
        const Bytes path = rng.chance(150) ? random_sequential_path(rng) : random_path(rng);
        const Zxid zxid{i};
        const auto time_ms = static_cast<std::int64_t>(i * 10);
        const std::int32_t version =
            rng.chance(500) ? any_version : static_cast<std::int32_t>(rng.below(3));
        const Bytes bytes(rng.below(60), static_cast<char>(rng.next()));
        const BytesView value = rng.chance(100) ? coord::null_data : BytesView(bytes);
        Errc ours = Errc::ok, expected = Errc::ok;
        // Growth and shrinkage take turns, so that the tree is large, small and in between.
        const std::uint64_t creates = (i / 20000) % 2 == 0 ? 500 : 200;
        const std::uint64_t dice = rng.below(1000);
        if (dice < creates) {
            const auto mode = static_cast<CreateMode>(rng.below(7));
            const SessionId owner{1 + rng.below(3)};
            const std::int64_t ttl_ms =
                coord::has_ttl(mode) ? static_cast<std::int64_t>(1 + rng.below(20000)) : 0;
            Bytes made, expected_made;
            ours = create(tree, path, mode, value, i, time_ms, owner, made, ttl_ms);
            expected = model.create(path, mode, value, owner, zxid, time_ms, expected_made, ttl_ms);
            if (ours == Errc::ok) REQUIRE(made == expected_made);
        } else if (dice < 650) {
            const auto node = tree.find(path);
            const Zxid czxid = node && rng.chance(900) ? node->stat.czxid : Zxid{1};
            ours = tree.reap(path, czxid, zxid, time_ms);
            expected = model.reap(path, czxid, zxid, time_ms);
            reaped += ours == Errc::ok ? 1 : 0;
        } else if (dice < 800) {
            ours = tree.remove(path, version, zxid);
            expected = model.remove(path, version, zxid);
        } else {
            ours = tree.set(path, value, version, zxid, time_ms);
            expected = model.set(path, value, version, zxid, time_ms);
        }
        CAPTURE(path);
        REQUIRE(ours == expected);
        REQUIRE(tree.size() == model.nodes.size());
        outcomes[ours] += 1;
        if (i % 5000 == 0) compare(tree, model);
        const auto slice = static_cast<std::uint32_t>(1 + i / 1000 % 7);
        if (i % 1000 == 0) REQUIRE(due(tree, time_ms, slice) == model.due(time_ms));
        if (i % 20000 == 0) {
            REQUIRE(children(tree, "/") == model.children("/"));
            REQUIRE(children(tree, "/n1").size() == model.children("/n1").size());
            Tree loaded{rng.next()};
            REQUIRE(load(loaded, save(tree)) == Errc::ok);
            compare(loaded, model);
            REQUIRE(loaded.digest() == tree.digest());
        }
    }
    for (const Errc error :
         {Errc::ok, Errc::bad_arguments, Errc::no_node, Errc::node_exists, Errc::bad_version,
          Errc::not_empty, Errc::no_children_for_ephemerals}) {
        CAPTURE(error);
        CHECK(outcomes[error] > 500);
    }
    CHECK(reaped > 500);
}

}  // TEST_SUITE
