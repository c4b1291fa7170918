// Chapters 3, 4, 12 and 13: who may do what. ACLs as values and as nodes have them, identities as
// sessions have them, each error in its order; what answers and events show; over a save, a move
// and a leader's death.

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "machine_rig.hpp"
#include "session_rig.hpp"
#include "support.hpp"

namespace coord {
inline namespace COORD_ABI {
namespace detail {
Bytes sha1(BytesView bytes);
Bytes base64(BytesView bytes);
}  // namespace detail
}  // namespace COORD_ABI
}  // namespace coord

namespace {

using coord::Acl;
using coord::Bytes;
using coord::BytesView;
using coord::CreateMode;
using coord::Errc;
using coord::NodeAcl;
using coord::NodeLife;
using coord::Op;
using coord::Query;
using coord::Result;
using coord::seconds;
using coord::Session;
using coord::Sync;
using coord::Tree;
using coord::Zxid;
using session_rig::Alone;
using session_rig::Ensemble;
using Lines = std::vector<std::string>;
namespace permission = coord::permission;

// "31 digest:user:hash", one line for each entry.
Lines lines(const Acl& acl) {
    Lines all;
    for (std::size_t i = 0; i < acl.size(); i++) {
        const Acl::Entry entry = acl[i];
        all.push_back(std::to_string(entry.permissions) + " " + Bytes(entry.scheme) + ":" +
                      Bytes(entry.id));
    }
    return all;
}

Lines lines(const Result<NodeAcl>& acl) {
    return acl ? lines(acl->acl) : Lines{coord::name(acl.error())};
}

std::string hex(BytesView bytes) {
    std::string text;
    for (const char each : bytes) {
        const auto code = static_cast<unsigned char>(each);
        text += "0123456789abcdef"[code >> 4], text += "0123456789abcdef"[code & 15];
    }
    return text;
}

const char* const user = "user:password";

// Nobody but that user.
Acl private_acl(BytesView credential = user) {
    return Acl(permission::all, "digest", coord::digest_id(credential));
}

Bytes identity(BytesView scheme, BytesView id) { return Acl(0, scheme, id).bytes(); }

coord::ReplicaOptions options_with_super() {
    coord::ReplicaOptions options;
    options.super_digest = coord::digest_id("super:secret");
    options.schemes = {"token"};
    options.judge_credential = [](BytesView scheme, BytesView credential, Bytes& id) {
        id.assign(credential.substr((std::min)(credential.size(), std::size_t{6})));
        return scheme == "token" && credential.substr(0, 6) == "valid-";
    };
    return options;
}

}  // namespace

TEST_SUITE("13 acl") {
TEST_CASE("SHA-1 and base64 are those of their standards") {
    using coord::detail::base64;
    using coord::detail::sha1;
    CHECK(hex(sha1("")) == "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    CHECK(hex(sha1("abc")) == "a9993e364706816aba3e25717850c26c9cd0d89d");
    CHECK(hex(sha1("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")) ==
          "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    CHECK(hex(sha1(Bytes(1000000, 'a'))) == "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    CHECK(base64("") == "");
    CHECK(base64("f") == "Zg==");
    CHECK(base64("fo") == "Zm8=");
    CHECK(base64("foo") == "Zm9v");
    CHECK(base64("foob") == "Zm9vYg==");
    CHECK(base64("fooba") == "Zm9vYmE=");
    CHECK(base64("foobar") == "Zm9vYmFy");
    // What a ZooKeeper has answered.
    CHECK(coord::digest_id("u:p") == "u:Jq7wMyA/w2Vd5WIDAKdu4OIIFEQ=");
    CHECK(coord::digest_id("v:q:r") == "v:CmL5ebCEXlR5EfFhKHiy8AwxDK4=");
    CHECK(coord::digest_id("nocolon") == "nocolon:Ra+cHr2ZoHvBjtNArFGNGlVie4g=");
    CHECK(coord::digest_id("super:secret") == "super:lK75jTNcA+U9vtVEw5vB51mj/w4=");
}

TEST_CASE("an ACL is a value, and its bytes are these") {
    Acl acl(permission::read, "world", "anyone");
    acl.add(permission::all, "ip", "10.0.0.0/8");
    CHECK(lines(acl) == Lines{"1 world:anyone", "31 ip:10.0.0.0/8"});
    CHECK(hex(Acl(31, "ip", "::").bytes()) == "0000001f" "00000002" "6970" "00000002" "3a3a");
    CHECK(Acl::from(acl.bytes()) == acl);
    CHECK(acl != coord::open_acl());
    CHECK(Acl().empty());
    CHECK(lines(coord::open_acl()) == Lines{"31 world:anyone"});
    CHECK(lines(coord::creator_acl()) == Lines{"31 auth:"});
    CHECK(lines(coord::read_only_acl()) == Lines{"1 world:anyone"});
    CHECK(identity("super", "") == coord::super_user);
    CHECK(Acl::from("xyz").size() == 0);  // what is none gives nothing
    CHECK(Acl::from(acl.bytes() + "x").size() == 2);
    CHECK(Acl::from(BytesView(acl.bytes()).substr(0, acl.bytes().size() - 1)).size() == 1);
}

TEST_CASE("what an ACL gives, and to whom") {
    const Acl acl = Acl(permission::read, "world", "anyone").add(permission::write, "token", "a");
    const Bytes a = identity("token", "a"), b = identity("token", "b");
    CHECK(coord::permits(acl.bytes(), {}, permission::read));
    CHECK_FALSE(coord::permits(acl.bytes(), {}, permission::write));
    CHECK(coord::permits(acl.bytes(), a, permission::write));
    CHECK(coord::permits(acl.bytes(), b + a, permission::write));
    CHECK_FALSE(coord::permits(acl.bytes(), b, permission::write));
    CHECK_FALSE(coord::permits(acl.bytes(), identity("other", "a"), permission::write));
    CHECK_FALSE(coord::permits(acl.bytes(), a, permission::admin));
    CHECK(coord::permits(acl.bytes(), a, permission::admin | permission::write));  // one is enough
    CHECK(coord::permits(acl.bytes(), b + Bytes(coord::super_user), permission::admin));
    CHECK(coord::permits({}, {}, permission::all));  // open
    CHECK_FALSE(coord::permits(Acl(0, "world", "anyone").bytes(), a, permission::all));
}

TEST_CASE("ip: addresses, and all that begin with some bits") {
    const auto is_in = [](BytesView address, BytesView network) {
        return coord::permits(Acl(31, "ip", network).bytes(), identity("ip", address), 1);
    };
    CHECK(is_in("10.1.2.3", "10.1.2.3"));
    CHECK_FALSE(is_in("10.1.2.4", "10.1.2.3"));
    CHECK(is_in("10.9.9.9", "10.1.2.3/8"));
    CHECK_FALSE(is_in("11.9.9.9", "10.1.2.3/8"));
    CHECK(is_in("10.1.2.3", "0.0.0.0/0"));
    CHECK(is_in("10.1.2.129", "10.1.2.128/25"));
    CHECK_FALSE(is_in("10.1.2.127", "10.1.2.128/25"));
    CHECK(is_in("2001:db8::1", "2001:DB8:0:0:0:0:0:1"));
    CHECK(is_in("2001:db8::1", "2001:db8::/32"));
    CHECK_FALSE(is_in("2001:db9::1", "2001:db8::/32"));
    CHECK(is_in("::ffff:10.0.0.1", "::ffff:a00:1"));
    CHECK_FALSE(is_in("10.0.0.1", "::/0"));  // another family
    CHECK_FALSE(is_in("::1", "0.0.0.0/0"));
    CHECK_FALSE(is_in("x", "10.0.0.0/8"));
}

TEST_CASE("which ids are ids, as ZooKeeper has it") {
    Alone rig(options_with_super());
    const Sync zk = rig.open();
    const auto judged = [&](BytesView scheme, BytesView id) {
        const auto made = zk.create("/v-", "", CreateMode::persistent_sequential, {},
                                    Acl(31, scheme, id));
        return made.error();
    };
    struct Id {
        const char* scheme;
        const char* id;
    };
    for (const Id& good : {Id{"world", "anyone"}, {"digest", "a:b"}, {"digest", ":b"},
                           {"digest", "a:b::"}, {"ip", "127.0.0.1"}, {"ip", "127.0.0.1/8"},
                           {"ip", "127.0.0.1/0"}, {"ip", "127.0.0.1/32"}, {"ip", "001.2.3.4"},
                           {"ip", "::"}, {"ip", "fe80::/10"}, {"ip", "1::8/128"},
                           {"ip", "1:2:3:4:5:6:1.2.3.4"}, {"token", "x"}}) {
        CAPTURE(good.scheme);
        CAPTURE(good.id);
        CHECK(judged(good.scheme, good.id) == Errc::ok);
    }
    for (const Id& bad : {Id{"world", "any"}, {"world", ""}, {"digest", "a"}, {"digest", "a:b:c"},
                          {"digest", "a:"}, {"digest", ":"}, {"digest", ""}, {"super", ""},
                          {"super", "x"}, {"foo", "bar"}, {"", "x"}, {"to ken", "x"},
                          {"token", ""}, {"auth", "x"}, {"ip", "127.0.0.1/33"},
                          {"ip", "127.0.0.1/-1"}, {"ip", "127.0.0/8"}, {"ip", "256.0.0.1"},
                          {"ip", "1.2.3.4/"}, {"ip", "1.2.3.4/x"}, {"ip", " 1.2.3.4"},
                          {"ip", "1.2.3.4."}, {"ip", "1.2.3.4.5"}, {"ip", ".1.2.3"},
                          {"ip", "1..2.3"}, {"ip", ""}, {"ip", ":"}, {"ip", ":::"},
                          {"ip", "1:2:3:4:5:6:7"}, {"ip", "1:2:3:4:5:6:7:8:9"},
                          {"ip", "1::2::3"}, {"ip", "12345::"}, {"ip", "g::"},
                          {"ip", "1:2:3:4:5:6:7:"}, {"ip", "::/129"}, {"ip", "1.2.3.4::"},
                          {"ip", "1:2:3:4:5:6:7::8"}, {"ip", "@::"}, {"ip", "`::"}}) {
        CAPTURE(bad.scheme);
        CAPTURE(bad.id);
        CHECK(judged(bad.scheme, bad.id) == Errc::invalid_acl);
    }
    CHECK(zk.create("/p", "", CreateMode::persistent, {}, Acl(32, "world", "anyone")).error() ==
          Errc::invalid_acl);
    CHECK(zk.create("/p", "", CreateMode::persistent, {}, Acl(0, "world", "anyone")));
}

TEST_CASE("the tree keeps each list once, as long as a node has it (T9)") {
    Tree tree(1);
    const std::uint64_t fresh = tree.digest();
    const Bytes one = private_acl("a:b").bytes(), two = private_acl("c:d").bytes();
    CHECK_FALSE(tree.hides_some());
    const auto make = [&](BytesView path, BytesView acl, std::uint64_t zxid) {
        tree.create(path, "data", NodeLife{}, Zxid{zxid}, 1, acl);
        tree.audit();
    };
    make("/a", one, 1);
    make("/b", one, 2);
    make("/c", two, 3);
    make("/d", {}, 4);
    CHECK(tree.hides_some());
    CHECK(tree.find("/a")->acl == one);
    CHECK(tree.find("/c")->acl == two);
    CHECK(tree.find("/d")->acl.empty());
    CHECK(tree.can_hold(two, 3));
    CHECK_FALSE(tree.can_hold(private_acl("e:f").bytes(), 3));  // config's is one
    CHECK(tree.can_hold(private_acl("e:f").bytes(), 4));
    coord::Stat stat;
    CHECK(tree.set_acl("/a", two, 0, 100, &stat) == Errc::ok);
    tree.audit();
    CHECK(stat.aversion == 1);
    CHECK(stat.version == 0);
    CHECK(stat.mzxid == Zxid{1});
    CHECK(tree.set_acl("/a", two, 0, 100, &stat) == Errc::bad_version);
    CHECK(tree.set_acl("/a", {}, 1, 100, &stat) == Errc::ok);  // open, but it was set
    CHECK(stat.aversion == 2);
    CHECK(tree.find("/a")->acl.empty());
    CHECK(tree.find("/a")->stat.aversion == 2);
    CHECK(tree.set_acl("/b", two, -1, 3, &stat) == Errc::too_many);
    tree.audit();
    for (const char* const path : {"/a", "/b", "/c", "/d"}) {
        CHECK(tree.remove(path, -1, Zxid{9}) == Errc::ok);
        tree.audit();
    }
    CHECK_FALSE(tree.hides_some());
    CHECK(tree.digest() != fresh);  // the root has had children
    CHECK(tree.can_hold(one, 2));
    CHECK_FALSE(tree.can_hold(one, 1));
}

TEST_CASE("the digest knows an ACL and its aversion (T2)") {
    Tree a(1), b(2);
    for (Tree* const tree : {&a, &b}) tree->create("/x", "", NodeLife{}, Zxid{1}, 1);
    CHECK(a.digest() == b.digest());
    const Bytes list = private_acl().bytes();
    coord::Stat stat;
    CHECK(a.set_acl("/x", list, -1, 9, &stat) == Errc::ok);
    CHECK(a.digest() != b.digest());
    CHECK(b.set_acl("/x", private_acl("q:r").bytes(), -1, 9, &stat) == Errc::ok);
    CHECK(a.digest() != b.digest());  // the list
    CHECK(b.set_acl("/x", list, -1, 9, &stat) == Errc::ok);
    CHECK(a.digest() != b.digest());  // the aversion
    CHECK(a.set_acl("/x", list, -1, 9, &stat) == Errc::ok);
    CHECK(a.digest() == b.digest());
}

TEST_CASE("each operation asks for its permission, and in ZooKeeper's order") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    REQUIRE(owner.create("/p", "secret", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(owner.create("/p/k", ""));
    CHECK(other.get("/p").error() == Errc::no_auth);
    CHECK(other.children("/p").error() == Errc::no_auth);
    CHECK(other.read(Query::list("/p")).error() == Errc::no_auth);
    CHECK(other.read(Query::descendants("/p")).error() == Errc::no_auth);
    CHECK(other.get_acl("/p").error() == Errc::no_auth);
    CHECK(other.get("/p/none").error() == Errc::no_node);
    CHECK(other.set("/p", "").error() == Errc::no_auth);
    CHECK(other.set("/p", "", 77).error() == Errc::no_auth);      // before the version
    CHECK(other.set("/q", "", 77).error() == Errc::no_node);
    CHECK(other.create("/p/x", "").error() == Errc::no_auth);
    CHECK(other.create("/p/k", "").error() == Errc::no_auth);     // before node_exists
    CHECK(other.create("/q/k", "").error() == Errc::no_node);
    CHECK(other.remove("/p/k").error() == Errc::no_auth);
    CHECK(other.remove("/p/none").error() == Errc::no_auth);      // the parent is asked first
    CHECK(other.remove("/p/k", 77).error() == Errc::no_auth);
    CHECK(other.remove("/q/none").error() == Errc::no_node);
    CHECK(other.set_acl("/p", coord::open_acl()).error() == Errc::no_auth);
    CHECK(other.set_acl("/p", coord::open_acl(), 77).error() == Errc::no_auth);
    CHECK(other.set_acl("/p", Acl()).error() == Errc::invalid_acl);  // before no_auth
    CHECK(other.set_acl("/q", Acl()).error() == Errc::invalid_acl);  // before no_node
    CHECK(other.set_acl("/q", coord::open_acl()).error() == Errc::no_node);
    CHECK(other.create("/q/k", "", CreateMode::persistent, {}, coord::creator_acl()).error() ==
          Errc::invalid_acl);                                     // before no_node
    CHECK(other.create("a", "", CreateMode::persistent, {}, Acl(99, "x", "")).error() ==
          Errc::bad_arguments);
    const coord::Multi checked = other.multi({Op::check("/p", 77)});
    CHECK(checked.error == Errc::no_auth);
    CHECK(other.multi({Op::check("/q")}).error == Errc::no_node);
    CHECK(other.exists("/p"));  // needs nothing

    CHECK(owner.get("/p")->bytes == "secret");
    CHECK(owner.children("/p")->names == std::vector<Bytes>{"k"});
    CHECK(owner.set("/p", "", 77).error() == Errc::bad_version);
    CHECK(owner.set_acl("/p", coord::open_acl(), 77).error() == Errc::bad_version);
    CHECK(owner.remove("/p/none").error() == Errc::no_node);
    CHECK(owner.multi({Op::check("/p", 77)}).error == Errc::bad_version);
    CHECK(owner.create("/p/x", ""));
    CHECK(owner.remove("/p/x"));
    // The parent is asked, and not the node.
    CHECK(owner.remove("/p/k"));
    CHECK(other.remove("/p"));
}

TEST_CASE("each permission gives its own, and no other") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    struct Given {
        std::uint32_t permissions;
        bool get, set, create, remove, get_acl, set_acl;
    };
    for (const Given& given : {Given{permission::read, true, false, false, false, true, false},
                               Given{permission::write, false, true, false, false, false, false},
                               Given{permission::create, false, false, true, false, false, false},
                               Given{permission::remove, false, false, false, true, false, false},
                               Given{permission::admin, false, false, false, false, true, true}}) {
        CAPTURE(given.permissions);
        const Acl acl = Acl(given.permissions, "world", "anyone")
                            .add(permission::all, "digest", coord::digest_id(user));
        REQUIRE(owner.create("/n", "", CreateMode::persistent, {}, acl));
        REQUIRE(owner.create("/n/k", ""));
        CHECK(other.get("/n").error() == (given.get ? Errc::ok : Errc::no_auth));
        CHECK(other.set("/n", "").error() == (given.set ? Errc::ok : Errc::no_auth));
        CHECK(other.create("/n/c", "").error() == (given.create ? Errc::ok : Errc::no_auth));
        CHECK(other.remove("/n/k").error() == (given.remove ? Errc::ok : Errc::no_auth));
        CHECK(other.get_acl("/n").error() == (given.get_acl ? Errc::ok : Errc::no_auth));
        CHECK(other.set_acl("/n", acl).error() == (given.set_acl ? Errc::ok : Errc::no_auth));
        (void)owner.remove("/n/k"), (void)owner.remove("/n/c");
        REQUIRE(owner.remove("/n"));
    }
}

TEST_CASE("get_acl shows a digest to who may change the ACL, and to nobody else") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", "u:p"));
    const Acl acl = Acl(permission::read, "world", "anyone")
                        .add(permission::all, "digest", coord::digest_id("u:p"))
                        .add(permission::all, "ip", "1.2.3.4");
    REQUIRE(owner.create("/r", "", CreateMode::persistent, {}, acl));
    CHECK(lines(other.get_acl("/r")) ==
          Lines{"1 world:anyone", "31 digest:u:x", "31 ip:1.2.3.4"});
    CHECK(owner.get_acl("/r")->acl == acl);
    CHECK(owner.get_acl("/r")->stat.aversion == 0);
    CHECK(lines(other.get_acl("/none")) == Lines{"no_node"});
    CHECK(lines(other.get_acl("/")) == Lines{"31 world:anyone"});
    REQUIRE(owner.create("/open", "", CreateMode::persistent, {}, coord::open_acl()));
    CHECK(lines(other.get_acl("/open")) == Lines{"31 world:anyone"});
    CHECK(rig.replica.tree().find("/open")->acl.empty());
    const auto set = owner.set_acl("/r", coord::open_acl(), 0);
    REQUIRE(set);
    CHECK(set->aversion == 1);
    CHECK(lines(other.get_acl("/r")) == Lines{"31 world:anyone"});
    CHECK(other.get_acl("/r")->stat.aversion == 1);
    // And as parts of what is read at one moment.
    const auto several = other.multi_read({Query::acl("/r"), Query::acl("/none"), Query::get("/")});
    REQUIRE(several);
    CHECK(lines(several->parts[0].acl) == Lines{"31 world:anyone"});
    CHECK(several->parts[0].stat.aversion == 1);
    CHECK(several->parts[1].error == Errc::no_node);
    CHECK(several->parts[2].acl.empty());
}

TEST_CASE("auth stands for all identities that the session has when it is applied") {
    Alone rig(options_with_super());
    const Sync zk = rig.open();
    CHECK(zk.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()).error() ==
          Errc::invalid_acl);
    REQUIRE(zk.add_auth("ip", "10.0.0.1"));  // says where one is, not who
    CHECK(zk.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()).error() ==
          Errc::invalid_acl);
    REQUIRE(zk.add_auth("digest", "u:p"));
    REQUIRE(zk.add_auth("digest", "u:p"));  // once more is nothing
    REQUIRE(zk.add_auth("token", "valid-me"));
    const Acl acl = Acl(31, "auth", "whatever").add(1, "auth", "").add(1, "world", "anyone")
                        .add(1, "world", "anyone").add(31, "auth", "again");
    REQUIRE(zk.create("/x", "", CreateMode::persistent, {}, acl));
    const Bytes id = coord::digest_id("u:p");
    CHECK(lines(zk.get_acl("/x")) == Lines{"31 digest:" + id, "31 token:me", "1 digest:" + id,
                                           "1 token:me", "1 world:anyone"});
    CHECK(lines(zk.whoami()) == Lines{"0 ip:10.0.0.1", "0 digest:u", "0 token:me"});
    REQUIRE(zk.set_acl("/x", coord::creator_acl()));
    CHECK(lines(zk.get_acl("/x")) == Lines{"31 digest:" + id, "31 token:me"});
}

TEST_CASE("super is refused nothing but what nobody may") {
    Alone rig(options_with_super());
    const Sync owner = rig.open(), super = rig.open();
    REQUIRE(owner.add_auth("token", "valid-one"));
    REQUIRE(owner.create("/x", "secret", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(super.add_auth("digest", "super:wrong"));
    CHECK(super.get("/x").error() == Errc::no_auth);
    REQUIRE(super.add_auth("digest", "super:secret"));
    CHECK(super.get("/x")->bytes == "secret");
    CHECK(super.set("/x", "y"));
    CHECK(super.create("/x/y", ""));
    CHECK(super.remove("/x/y"));
    CHECK(lines(super.get_acl("/x")) == Lines{"31 token:one"});
    CHECK(lines(super.whoami()) == Lines{"0 digest:super", "0 super:", "0 digest:super"});
    CHECK(super.create("/s", "", CreateMode::persistent, {}, coord::creator_acl()));
    CHECK(lines(super.get_acl("/s")) ==
          Lines{"31 digest:" + coord::digest_id("super:wrong"),
                "31 digest:" + coord::digest_id("super:secret")});
    CHECK(super.set("/zookeeper/config", "x").error() == Errc::bad_arguments);  // M16
    const auto set = super.set_acl("/zookeeper/config", coord::read_only_acl());
    REQUIRE(set);
    CHECK(set->aversion == 0);  // it was -1
    CHECK(super.remove("/zookeeper/config").error() == Errc::bad_arguments);
}

TEST_CASE("everybody reads /zookeeper/config, and nobody does more") {
    Alone rig;
    const Sync zk = rig.open();
    const auto acl = zk.get_acl("/zookeeper/config");
    CHECK(lines(acl) == Lines{"1 world:anyone"});
    CHECK(acl->stat.aversion == -1);
    CHECK(zk.get("/zookeeper/config"));
    CHECK(zk.set("/zookeeper/config", "").error() == Errc::no_auth);
    CHECK(zk.create("/zookeeper/config/x", "").error() == Errc::no_auth);
    CHECK(zk.set_acl("/zookeeper/config", coord::open_acl()).error() == Errc::no_auth);
    CHECK_FALSE(rig.replica.tree().hides_some());
    for (const char* const path : {"/", "/zookeeper", "/zookeeper/quota"}) {
        CHECK(lines(zk.get_acl(path)) == Lines{"31 world:anyone"});
    }
}

TEST_CASE("a credential that nobody takes is auth_failed, and the session goes on") {
    Alone rig(options_with_super());
    const Sync zk = rig.open();
    for (const char* const scheme : {"world", "auth", "super", "foo", "", "x509", "/a"}) {
        CAPTURE(scheme);
        CHECK(zk.add_auth(scheme, "valid-x").error() == Errc::auth_failed);
    }
    CHECK(zk.add_auth("token", "stolen-x").error() == Errc::auth_failed);
    CHECK(zk.add_auth("ip", "10.0.0.0/8").error() == Errc::auth_failed);  // no address
    CHECK(zk.add_auth("ip", "").error() == Errc::auth_failed);
    CHECK(zk.below("/app").add_auth("/a", "valid-x").error() == Errc::auth_failed);
    CHECK(lines(zk.whoami()).empty());
    REQUIRE(zk.below("/app").add_auth("token", "valid-x"));
    CHECK(lines(zk.whoami()) == Lines{"0 token:x"});
    // A scheme that is named, and that nobody judges.
    coord::ReplicaOptions options;
    options.schemes = {"token"};
    Alone lone(options);
    CHECK(lone.open().add_auth("token", "valid-x").error() == Errc::auth_failed);
}

TEST_CASE("no password is in the log") {
    Alone rig;
    const Sync zk = rig.open();
    REQUIRE(zk.add_auth("digest", "user:the-password"));
    REQUIRE(zk.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()));
    struct Records final : coord::RecoverySink {
        Bytes all;
        void on_record(coord::Sequence, BytesView record) override { all.append(record); }
        void on_snapshot(coord::Sequence, BytesView, std::uint64_t) override {}
    } records;
    rig.disk.crash();
    REQUIRE(rig.disk.open(records, {}) == Errc::ok);
    CHECK(records.all.find("the-password") == Bytes::npos);
    CHECK(records.all.find(coord::digest_id("user:the-password")) != Bytes::npos);
}

TEST_CASE("limits have their errors") {
    coord::ReplicaOptions options = options_with_super();
    options.limits.acl_entries_max = 2;
    options.limits.acl_id_bytes_max = 64;
    options.limits.acls_max = 3;
    options.limits.identities_per_session_max = 2;
    Alone rig(options);
    const Sync zk = rig.open();
    const auto create = [&](BytesView path, const Acl& acl) {
        return zk.create(path, "", CreateMode::persistent, {}, acl).error();
    };
    Acl three = private_acl("a:b");
    three.add(1, "world", "anyone").add(1, "ip", "::");
    CHECK(create("/x", three) == Errc::too_many);
    CHECK(create("/x", Acl(1, "token", Bytes(65, 'x'))) == Errc::too_large);
    CHECK(create("/x", Acl(1, "token", Bytes(64, 'x'))) == Errc::ok);
    CHECK(create("/y", Acl(1, "token", "y")) == Errc::ok);
    CHECK(create("/z", Acl(1, "token", "z")) == Errc::too_many);  // config's is one
    CHECK(create("/z", Acl(1, "token", "y")) == Errc::ok);
    CHECK(zk.set_acl("/", Acl(1, "token", "z")).error() == Errc::too_many);
    CHECK(zk.add_auth("token", Bytes("valid-") + Bytes(65, 'x')).error() == Errc::too_large);
    REQUIRE(zk.add_auth("token", "valid-1"));
    REQUIRE(zk.add_auth("token", "valid-2"));
    CHECK(zk.add_auth("token", "valid-3").error() == Errc::too_many);
    REQUIRE(zk.add_auth("token", "valid-2"));
    CHECK(lines(zk.whoami()) == Lines{"0 token:1", "0 token:2"});
    // Each is two: four entries.
    CHECK(create("/w", Acl(1, "auth", "").add(2, "auth", "")) == Errc::too_many);
    rig.replica.audit();
}

TEST_CASE("remove_all: who may not remove hears of that, and not of versions and numbers") {
    coord::ReplicaOptions options;
    options.limits.removals_max = 3;
    Alone rig(options);
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    REQUIRE(owner.create("/p", "", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(owner.create_with_parents("/p/a/b", "", CreateMode::ephemeral));
    CHECK(other.multi({Op::remove_all("/p/a", 7)}).error == Errc::no_auth);
    REQUIRE(owner.create("/p/a/c", ""));
    REQUIRE(owner.create("/p/a/d", ""));
    CHECK(other.remove_all("/p/a").error() == Errc::no_auth);
    CHECK(owner.remove_all("/p/a").error() == Errc::too_large);
    REQUIRE(owner.remove("/p/a/d"));
    // In the middle of it somebody may not; and then nothing has gone.
    REQUIRE(owner.set_acl("/p", coord::open_acl()));
    REQUIRE(owner.set_acl("/p/a", Acl(permission::all & ~permission::remove, "world", "anyone")
                                      .add(permission::remove, "auth", "")));
    const std::uint64_t digest = rig.replica.tree().digest();
    CHECK(other.remove_all("/p/a").error() == Errc::no_auth);
    CHECK(other.multi({Op::create("/q", ""), Op::remove_all("/p/a")}).error == Errc::no_auth);
    CHECK(rig.replica.tree().digest() == digest);
    // A leaf's own list does not matter, nor one that refuses to be read.
    REQUIRE(owner.set_acl("/p/a/b", Acl(permission::read, "auth", "")));
    CHECK(owner.remove_all("/p/a").error() == Errc::ok);
    CHECK(owner.children("/p")->names.empty());
}

TEST_CASE("an Op of whatever code: an error, and no assertion") {
    Alone rig;
    const Sync zk = rig.open();
    for (int code = 0; code < 256; code++) {
        CAPTURE(code);
        Op op;
        op.code = static_cast<coord::OpCode>(code), op.path = "/none";
        CHECK(zk.multi({op, Op::check("/never")}).error != Errc::ok);
    }
    Op op = Op::check("/");
    op.code = coord::OpCode::auth;
    CHECK(zk.multi({op}).error == Errc::unimplemented);
}

TEST_CASE("limits that allow no ACL: what such a replica saves it can load") {
    for (std::uint32_t which = 0; which < 4; which++) {
        CAPTURE(which);
        coord::Limits limits;
        if (which == 0) limits.acl_entries_max = 0;
        if (which == 1) limits.acl_id_bytes_max = 5;
        if (which == 2) limits.acls_max = 0;
        if (which == 3) limits.acl_entries_max = limits.identities_per_session_max = 0;
        machine::Rig rig(limits);
        const coord::SessionId session = rig.open(1);
        REQUIRE(rig.create(session, "/x").error == Errc::ok);
        coord::Machine other(limits, 2);
        CHECK(other.load(rig.saved()) == Errc::ok);
        CHECK(other.digest() == rig.machine.digest());
    }
}

TEST_CASE("a multi creates with an ACL and sets one; what fails leaves no trace (T6)") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    REQUIRE(other.create("/open", "d"));
    const std::uint64_t before = rig.replica.tree().digest();
    const std::vector<Op> parts = {
        Op::create("/a", "1", CreateMode::persistent, {}, coord::creator_acl()),
        Op::set_acl("/open", coord::creator_acl(), 0), Op::set("/open", "e"),
        Op::set_acl("/open", coord::read_only_acl(), 1), Op::create("/a/b", "")};
    std::vector<Op> failing = parts;
    failing.push_back(Op::check("/none"));
    CHECK(owner.multi(failing).error == Errc::no_node);
    rig.replica.audit();
    CHECK(rig.replica.tree().digest() == before);
    CHECK(lines(other.get_acl("/open")) == Lines{"31 world:anyone"});
    const coord::Multi done = owner.multi(parts);
    CHECK(done.error == Errc::ok);
    CHECK(done.parts[3].stat.aversion == 2);
    CHECK(other.get("/a").error() == Errc::no_auth);
    CHECK(other.get("/open")->bytes == "e");
    CHECK(other.set("/open", "f").error() == Errc::no_auth);
    // A part sees the ACL that one before it has set; and one in which another is refused.
    const coord::Multi refused = other.multi({Op::create("/mine", ""), Op::set("/a", "")});
    CHECK(refused.error == Errc::no_auth);
    CHECK(refused.parts[0].error == Errc::ok);
    CHECK_FALSE(other.exists("/mine"));
    CHECK(other.multi({Op::create("/m", ""), Op::set_acl("/m", private_acl()), Op::check("/m")})
              .error == Errc::no_auth);
    CHECK(other.multi({Op::set_acl("/open", Acl())}).error == Errc::invalid_acl);
}

TEST_CASE("set_acl keeps what it may undo, and not the data; and is counted as work") {
    Tree tree(1);
    tree.create("/x", Bytes(1000000, 'x'), NodeLife{}, Zxid{1}, 1, private_acl().bytes());
    const std::uint64_t digest = tree.digest(), work = tree.work();
    coord::Stat stat;
    tree.begin_undo();
    CHECK(tree.set_acl("/x", "", -1, 9, &stat) == Errc::ok);
    CHECK(tree.set("/x", "short", -1, Zxid{2}, 2, &stat) == Errc::ok);
    CHECK(tree.set_acl("/x", private_acl("q:r").bytes(), -1, 9, &stat) == Errc::ok);
    CHECK(tree.set_acl("/x", private_acl("q:r").bytes(), -1, 9, &stat) == Errc::ok);
    CHECK(tree.remove("/x", -1, Zxid{2}) == Errc::ok);
    CHECK(tree.work() == work + 4 + 4);
    tree.end_undo(true);
    tree.audit();
    CHECK(tree.digest() == digest);
    CHECK(tree.find("/x")->acl == private_acl().bytes());
    CHECK(tree.find("/x")->stat.aversion == 0);
    CHECK(tree.find("/x")->data.size() == 1000000);
}

// There the table of lists is written before the nodes, and a node refers to one that is not in it.
TEST_CASE("ZooKeeper B7 (ZOOKEEPER-3306, 4846): lists come and go while a snapshot is written") {
    for (std::size_t slice = 20; slice <= 400; slice += 38) {
        CAPTURE(slice);
        machine::Rig rig;
        rig.audits = false;
        const coord::SessionId session = rig.open(1);
        const auto list = [](const std::string& id) {  // and everybody may change it
            Acl acl = coord::open_acl();
            acl.add(coord::permission::read, "digest", id + ":x");
            return acl;
        };
        const auto path_of = [](int i) { return "/n" + std::to_string(i); };
        const auto set_acl = [&](int i, const Acl& acl) {
            Bytes body;
            coord::Writer out(body);
            out.bytes(path_of(i)), out.bytes(acl.bytes()), out.i32(coord::any_version);
            return rig.next(session, coord::OpCode::set_acl, body).error;
        };
        for (int i = 0; i < 30; i++) {
            REQUIRE(rig.create(session, path_of(i)).error == Errc::ok);
            REQUIRE(set_acl(i, list("old" + std::to_string(i))) == Errc::ok);
        }
        const std::uint64_t digest = rig.machine.digest();
        const Bytes before = rig.saved();
        Bytes state;
        int round = 0;
        rig.machine.begin_save();
        while (!rig.machine.save_slice(slice, state)) {  // one of those behind, one of those ahead
            const int i = round * 7 % 30;
            REQUIRE(set_acl(i, list("new" + std::to_string(round))) == Errc::ok);
            REQUIRE(set_acl(29 - i, list("all")) == Errc::ok);
            if (round == 3) REQUIRE(set_acl(11, coord::open_acl()) == Errc::ok);
            const Bytes made = "/made" + std::to_string(round);
            REQUIRE(rig.create(session, made).error == Errc::ok);
            round += 1;
        }
        CHECK(round > 3);
        coord::Machine loaded(coord::Limits{}, 2);
        REQUIRE(loaded.load(state) == Errc::ok);
        CHECK(loaded.digest() == digest);
        CHECK(support::sorted_records(support::save(loaded)) == support::sorted_records(before));
        for (int i = 0; i < 30; i++) {
            CHECK(loaded.tree().find(path_of(i))->acl ==
                  list("old" + std::to_string(i)).bytes());
        }
        loaded.audit();
        rig.machine.audit();
    }
}

// A megabyte for each would be a gigabyte, and seconds: of one request.
TEST_CASE("a multi sets the ACL of a large node a thousand times") {
    machine::Rig rig;
    rig.audits = false;
    const coord::SessionId session = rig.open(1);
    const auto multi = [&](const std::vector<std::pair<coord::OpCode, Bytes>>& parts) {
        return rig.next(session, coord::OpCode::multi, machine::multi_body(parts)).error;
    };
    REQUIRE(rig.create(session, "/x", Bytes(1000000, 'x')).error == Errc::ok);
    const std::uint64_t digest = rig.machine.tree().digest();
    std::vector<std::pair<coord::OpCode, Bytes>> parts;
    for (int i = 0; i < 1000; i++) {
        Bytes body;
        coord::Writer out(body);
        out.bytes("/x"), out.bytes(coord::open_acl().add(1, "ip", "::").bytes()), out.i32(i);
        parts.emplace_back(coord::OpCode::set_acl, body);
    }
    parts.emplace_back(coord::OpCode::check, machine::remove_body("/none", -1));
    CHECK(multi(parts) == Errc::no_node);
    CHECK(rig.machine.tree().digest() == digest);
    parts.pop_back();
    CHECK(multi(parts) == Errc::ok);
    CHECK(rig.machine.tree().find("/x")->stat.aversion == 1000);
    rig.machine.audit();
}

TEST_CASE("what is several writes in one asks for the permission of each") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    const Acl readable = coord::read_only_acl().add(permission::all, "auth", "");
    REQUIRE(owner.create("/p", "d", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(owner.create("/r", "d", CreateMode::persistent, {}, readable));
    REQUIRE(owner.create("/r/k", ""));
    CHECK(other.multi({Op::has_data("/p", "d")}).error == Errc::no_auth);
    CHECK(other.multi({Op::has_data("/r", "d")}).error == Errc::ok);
    CHECK(other.multi({Op::absent("/p")}).error == Errc::node_exists);
    CHECK(other.create_or_set("/p", "").error() == Errc::no_auth);
    CHECK(other.create_or_set("/p/x", "").error() == Errc::no_auth);
    CHECK(other.create_with_parents("/p/x/y", "").error() == Errc::no_auth);
    REQUIRE(other.create("/mine", ""));
    // The top's parent is open; that of what is below it is not.
    CHECK(other.remove_all("/r").error() == Errc::no_auth);
    CHECK(other.exists("/r/k"));
    CHECK(other.remove_all("/r/k").error() == Errc::no_auth);
    CHECK(owner.remove_all("/r"));
    CHECK(other.remove_all("/p"));  // has no children
    // A guarded handle's set_acl is guarded, too.
    const auto door = owner.create("/door", "", CreateMode::persistent, {}, coord::creator_acl());
    REQUIRE(door);
    const Sync guarded = owner.guarded_by("/door", door->stat.czxid);
    REQUIRE(guarded.add_auth("digest", "another:one"));
    REQUIRE(guarded.create("/g", "", CreateMode::persistent, {}, coord::creator_acl()));
    CHECK(lines(owner.get_acl("/g")).size() == 2);
    const auto set = guarded.set_acl("/g", coord::read_only_acl());
    REQUIRE(set);
    CHECK(set->aversion == 1);
    REQUIRE(owner.remove("/door"));
    CHECK(guarded.set_acl("/mine", coord::read_only_acl()).error() == Errc::guard_lost);
    CHECK(lines(other.get_acl("/mine")) == Lines{"31 world:anyone"});
}

TEST_CASE("a list shows that a child is there, and not what may not be read of it") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    REQUIRE(owner.create("/p", ""));
    REQUIRE(owner.create("/p/a", "open"));
    REQUIRE(owner.create("/p/b", "secret", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(owner.create("/p/c", coord::null_data, CreateMode::persistent, {}, private_acl()));
    const auto theirs = other.read(Query::list("/p"));
    REQUIRE(theirs);
    REQUIRE(theirs->nodes.size() == 3);
    CHECK(theirs->nodes[0].bytes == "open");
    CHECK(theirs->nodes[0].error == Errc::ok);
    CHECK(theirs->nodes[1].name == "b");
    CHECK(theirs->nodes[1].bytes == "");
    CHECK(theirs->nodes[1].error == Errc::no_auth);
    CHECK(theirs->nodes[1].stat.data_length == 6);  // as exists shows
    CHECK_FALSE(theirs->nodes[2].is_null);
    const auto ours = owner.read(Query::list("/p"));
    CHECK(ours->nodes[1].bytes == "secret");
    CHECK(ours->nodes[2].is_null);
    const auto parts = other.multi_read({Query::get("/p/a"), Query::get("/p/b")});
    CHECK(parts->parts[0].bytes == "open");
    CHECK(parts->parts[1].error == Errc::no_auth);
    CHECK(parts->parts[1].bytes.empty());
    CHECK(parts->parts[1].stat.data_length == 0);
}

TEST_CASE("a watcher hears of no node that its session may not read (W3)") {
    Alone rig;
    const Sync owner = rig.open(), other = rig.open();
    REQUIRE(owner.add_auth("digest", user));
    Lines heard;
    const auto watcher = [&](const std::string& who) {
        return [&heard, who](const coord::WatchEvent& event) {
            heard.push_back(who + " " + std::to_string(static_cast<int>(event.type)) + " " +
                            event.path);
        };
    };
    const auto take = [&] {
        rig.polls();
        return std::exchange(heard, {});
    };
    REQUIRE(owner.create("/p", ""));
    const Acl mine = coord::creator_acl();
    for (const Sync* const zk : {&owner, &other}) {
        const std::string who = zk == &owner ? "owner" : "other";
        REQUIRE(zk->add_watch("/", coord::AddWatchMode::persistent_recursive, watcher(who)));
        CHECK(zk->exists("/p/x", watcher(who + " once")).error() == Errc::no_node);
    }
    REQUIRE(owner.create("/p/x", "", CreateMode::persistent, {}, mine));
    CHECK(take() == Lines{"owner once 1 /p/x", "owner 1 /p/x"});
    for (const Sync* const zk : {&owner, &other}) {
        const std::string who = zk == &owner ? "owner" : "other";
        CHECK(zk->exists("/p/x", watcher(who + " once")));  // anybody may set it
    }
    REQUIRE(owner.set("/p/x", "1"));
    CHECK(take() == Lines{"owner once 3 /p/x", "owner 3 /p/x"});
    // The parent's is the parent's.
    CHECK(other.children("/p", {}, watcher("other children")));
    REQUIRE(owner.remove("/p/x"));
    CHECK(take() == Lines{"owner 2 /p/x", "other children 4 /p"});
    // As the change leaves it; and what was is asked where it goes.
    REQUIRE(owner.create("/p/y", ""));
    CHECK(take() == Lines{"owner 1 /p/y", "other 1 /p/y"});
    REQUIRE(owner.set_acl("/p/y", mine));
    CHECK(take().empty());
    REQUIRE(owner.set_acl("/p", mine));
    REQUIRE(other.exists("/p", watcher("other once")));
    const coord::Multi both = owner.multi({Op::set("/p", "2"), Op::remove("/p/y")});
    CHECK(both.error == Errc::ok);
    CHECK(take() == Lines{"owner 3 /p", "owner 2 /p/y"});
    // Of a private parent nobody hears that it has other children.
    REQUIRE(owner.set_acl("/p", Acl(permission::read, "world", "anyone").add(31, "auth", "")));
    CHECK(other.children("/p", {}, watcher("other children")));
    REQUIRE(owner.set_acl("/p", mine));
    REQUIRE(owner.create("/p/z", "", CreateMode::persistent, {}, coord::open_acl()));
    CHECK(take() == Lines{"owner 1 /p/z", "other 1 /p/z"});
    REQUIRE(owner.remove("/p/z"));
    CHECK(take() == Lines{"owner 2 /p/z", "other 2 /p/z"});
}

TEST_CASE("what a snapshot skips is told to who may read what is there then (W3)") {
    // Hears what would be told, with the ACLs.
    struct Sink final : coord::EventSink {
        std::vector<std::string> told;
        void on_event(coord::SessionId, coord::detail::Shared<const coord::Watcher>,
                      coord::EventType type, BytesView path, Zxid, BytesView acl) override {
            told.push_back(std::to_string(static_cast<int>(type)) + " " + Bytes(path) + " " +
                           std::to_string(Acl::from(acl).size()));
        }
    } sink;
    coord::Watches watches(sink);
    Tree before(1), after(2);
    const Bytes mine = private_acl().bytes();
    const Bytes two = private_acl().add(1, "token", "x").bytes();
    before.create("/gone", "", NodeLife{}, Zxid{1}, 1, mine);
    before.create("/is", "", NodeLife{}, Zxid{2}, 1);
    after.create("/is", "", NodeLife{}, Zxid{2}, 1, two);
    CHECK(after.set("/is", "new", -1, Zxid{5}, 1) == Errc::ok);
    after.create("/new", "", NodeLife{}, Zxid{6}, 1, mine);
    const auto nothing = [](const coord::WatchEvent&) {};
    for (const char* const path : {"/gone", "/is", "/new"}) {
        watches.add(coord::WatchKind::data, path, coord::SessionId{7}, nothing);
        watches.add(coord::WatchKind::persistent, path, coord::SessionId{7}, nothing);
    }
    watches.add(coord::WatchKind::recursive, "/", coord::SessionId{7}, nothing);
    watches.catch_up(before, after, Zxid{9});
    const Lines once = {"2 /gone 1", "3 /is 2", "1 /new 1"};
    CHECK(sink.told == Lines{once[0], once[1], once[2], once[0], once[1], once[2], once[1],
                             once[2], once[0]});
}

TEST_CASE("a save under way has the ACLs of when it began (T5)") {
    Tree tree(1);
    const Bytes mine = private_acl().bytes();
    tree.create("/a", "", NodeLife{}, Zxid{1}, 1, mine);
    const std::uint64_t digest = tree.digest();
    Bytes bytes;
    tree.begin_save();
    coord::Stat stat;
    CHECK(tree.set_acl("/a", private_acl("q:r").bytes(), -1, 9, &stat) == Errc::ok);
    while (!tree.save_slice(64, bytes)) {
    }
    Tree loaded(2);
    loaded.begin_load();
    coord::Reader in(bytes);
    while (in.left() > 0) {
        CHECK(in.u8() == 3);
        REQUIRE(loaded.load_node(in.bytes(SIZE_MAX), {}));
    }
    REQUIRE(loaded.end_load() == Errc::ok);
    CHECK(loaded.digest() == digest);
    CHECK(loaded.find("/a")->acl == mine);
}

TEST_CASE("golden: a node with an ACL, and what it adds to the digest") {
    Tree tree(1);
    tree.create("/a", "d", NodeLife{}, Zxid{1, 1}, 1000, Acl(5, "token", "me").bytes());
    coord::Stat stat;
    CHECK(tree.set_acl("/a", Acl(5, "token", "me").bytes(), -1, 9, &stat) == Errc::ok);
    Bytes bytes;
    tree.begin_save();
    while (!tree.save_slice(64, bytes)) {
    }
    CHECK(hex(BytesView(bytes).substr(bytes.size() - 108)) ==
          "0300000067" "000000022f61" "0000000164"
          "0000010000000001" "0000010000000001" "0000010000000001"
          "00000000000003e8" "00000000000003e8" "0000000000000000"
          "00000000" "00000001"               // version, aversion
          "0000000000000000" "00000000" "04"  // creations, children, kind
          "00000013" "00000005" "00000005" "746f6b656e" "00000002" "6d65");
    std::uint64_t digest = 0;
    REQUIRE(Tree::digest_of_record(BytesView(bytes).substr(bytes.size() - 103), {}, digest));
    CHECK(digest == 18329463792203113128u);
}

TEST_CASE("ephemeral nodes that are private go with their session, told to who may read them") {
    Alone rig;
    const Sync owner = rig.open(), friendly = rig.open(), other = rig.open();
    for (const Sync* const zk : {&owner, &friendly}) REQUIRE(zk->add_auth("digest", user));
    int friends = 0, others = 0;
    REQUIRE(owner.create("/e", "", CreateMode::ephemeral, {}, coord::creator_acl()));
    REQUIRE(friendly.exists("/e", [&](const coord::WatchEvent&) { friends += 1; }));
    REQUIRE(other.exists("/e", [&](const coord::WatchEvent&) { others += 1; }));
    REQUIRE(owner.close());
    rig.polls();
    CHECK(friends == 1);
    CHECK(others == 0);
    CHECK(other.exists("/e").error() == Errc::no_node);
}

TEST_CASE("paths of a handle below a path are below it for ACLs, too") {
    Alone rig;
    const Sync zk = rig.open(), app = zk.below("/app");
    REQUIRE(zk.create("/app", ""));
    REQUIRE(app.add_auth("digest", user));
    REQUIRE(app.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()));
    REQUIRE(app.set_acl("/x", private_acl()));
    CHECK(lines(app.get_acl("/x")) == Lines{"31 digest:" + coord::digest_id(user)});
    CHECK(app.get_acl("/x")->acl == zk.get_acl("/app/x")->acl);
    CHECK(app.multi({Op::set_acl("/x", private_acl("a:b"), 1)}).error == Errc::ok);
    CHECK(lines(app.whoami()) == Lines{"0 digest:user"});
}

TEST_CASE("a save has ACLs and identities, and a load gives them back") {
    machine::Rig rig;
    const auto session = rig.open(7);
    const Bytes me = identity("token", "me");
    CHECK(rig.next(session, coord::OpCode::auth, me).error == Errc::ok);
    const auto create = [&](BytesView path, const Acl& acl) {
        Bytes body;
        coord::Writer out(body);
        out.bytes(path), out.bytes("data"), out.i32(1 << 16), out.bytes(acl.bytes());  // FORMAT
        return rig.next(session, coord::OpCode::create, body).error;
    };
    CHECK(create("/a", coord::creator_acl()) == Errc::ok);
    CHECK(create("/b", coord::creator_acl()) == Errc::ok);
    CHECK(create("/c", coord::open_acl()) == Errc::ok);
    Bytes body;
    coord::Writer out(body);
    out.bytes("/c"), out.bytes(coord::open_acl().bytes()), out.i32(-1);  // FORMAT
    CHECK(rig.next(session, coord::OpCode::set_acl, body).error == Errc::ok);
    CHECK(rig.machine.tree().find("/c")->stat.aversion == 1);

    const Bytes state = rig.saved();
    coord::Machine loaded(coord::Limits{}, 99);
    REQUIRE(loaded.load(state) == Errc::ok);
    loaded.audit();
    CHECK(loaded.digest() == rig.machine.digest());
    CHECK(loaded.tree().find("/a")->acl == Acl(31, "token", "me").bytes());
    CHECK(loaded.tree().find("/c")->stat.aversion == 1);
    CHECK(loaded.find_session(session)->identities == me);
    CHECK(loaded.may(session, loaded.tree().find("/b")->acl, permission::write));
    CHECK_FALSE(loaded.may(coord::SessionId{12345}, loaded.tree().find("/b")->acl, 1));
    coord::Limits few;
    few.acls_max = 1;
    coord::Machine small(few, 99);
    CHECK(small.load(state) == Errc::corrupt);
    // What a save would not have written.
    const auto damaged = [&](BytesView from, BytesView to) {
        Bytes other = state;
        const std::size_t at = other.find(from);
        REQUIRE(at != Bytes::npos);
        other.replace(at, from.size(), to);
        return loaded.load(other);
    };
    CHECK(damaged("token", "world") == Errc::corrupt);
    // With a digest and a checksum that are right: only what stands there is not.
    const auto with_acl = [](const Acl& acl) {
        Bytes record;
        coord::Writer out_of(record);
        out_of.bytes("/zookeeper/config"), out_of.bytes("");
        for (int i = 0; i < 6; i++) out_of.u64(0);
        out_of.u64(0), out_of.u64(0), out_of.u32(0), out_of.u8(4), out_of.bytes(acl.bytes());
        std::uint64_t digest = 0;
        return Tree::digest_of_record(record, {}, digest);
    };
    CHECK(with_acl(coord::read_only_acl()));
    for (const Acl& none : {Acl(), coord::open_acl(), coord::creator_acl(), Acl(64, "ip", "::"),
                            Acl(1, "world", "all"), Acl(1, "to ken", "x"), Acl::from("xyz"),
                            coord::read_only_acl().add(1, "auth", "x")}) {
        CHECK_FALSE(with_acl(none));
    }
}

TEST_CASE("identities change the digest, and end where the session is attached elsewhere (M8)") {
    machine::Rig rig;
    const auto session = rig.open(7);
    const std::uint64_t before = rig.machine.digest();
    CHECK(rig.next(session, coord::OpCode::auth, identity("token", "a")).error == Errc::ok);
    CHECK(rig.machine.digest() != before);
    machine::Rig other;  // the same, but for who it is
    const auto twin = other.open(7);
    CHECK(other.next(twin, coord::OpCode::auth, identity("token", "b")).error == Errc::ok);
    CHECK(rig.machine.digest() != other.machine.digest());
    rig.machine.audit();
    for (const Bytes& bad : {Bytes(), Bytes("x"), identity("auth", ""), identity("world", "anyone"),
                             identity("super", "x"), Acl(1, "token", "b").bytes()}) {
        CHECK(rig.next(session, coord::OpCode::auth, bad).error != Errc::ok);
    }
    CHECK(rig.machine.find_session(session)->identities == identity("token", "a"));
    const Bytes part = machine::multi_body({{coord::OpCode::auth, identity("token", "b")}});
    CHECK(rig.next(session, coord::OpCode::multi, part).error == Errc::unimplemented);
    CHECK(rig.machine.find_session(session)->identities == identity("token", "a"));
    Bytes nonce;
    coord::Writer(nonce).u64(8);
    const std::uint64_t begin = coord::next_holding(rig.machine.find_session(session)->cxid);
    CHECK(rig.apply(session, begin, coord::OpCode::attach_session, nonce)->error == Errc::ok);
    CHECK(rig.machine.find_session(session)->identities.empty());
    rig.machine.audit();
}

TEST_CASE("whoever attaches a session begins without identities; ACLs stay") {
    Ensemble rig(3);
    const Sync first = rig.open(rig.follower());
    REQUIRE(first.add_auth("digest", user));
    REQUIRE(first.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()));
    auto attached = Sync::attach(rig.sim.replica(rig.leader()), first.session().id(),
                                 first.session().password(), rig.sim.pump());
    REQUIRE(attached);
    const Sync second(*attached, rig.sim.pump());
    CHECK(lines(second.whoami()).empty());
    CHECK(second.get("/x").error() == Errc::no_auth);
    CHECK(first.add_auth("digest", user).error() == Errc::session_moved);
    REQUIRE(second.add_auth("digest", user));
    CHECK(second.get("/x"));
}

TEST_CASE("every replica judges alike, after a crash and after a new leader") {
    Ensemble rig(5);
    const std::uint32_t at = rig.follower();
    const Sync zk = rig.open(at);
    REQUIRE(zk.add_auth("digest", user));
    REQUIRE(zk.create("/x", "", CreateMode::persistent, {}, coord::creator_acl()));
    const std::uint32_t old = rig.leader();
    rig.sim.crash(old);
    REQUIRE(zk.set("/x", "1"));  // goes on with its identity at the new leader
    rig.sim.restart(old);
    rig.sim.run_for(seconds(5));
    const Sync there = rig.open(old);
    REQUIRE(there.sync());
    CHECK(there.get("/x").error() == Errc::no_auth);
    REQUIRE(there.add_auth("digest", user));
    CHECK(there.get("/x")->bytes == "1");
    rig.sim.run_for(seconds(1));
    for (std::uint32_t id = 1; id <= 3; id++) {
        CHECK(rig.sim.replica(id).machine().digest() == rig.sim.replica(1).machine().digest());
        CHECK(rig.sim.replica(id).tree().find("/x")->acl == private_acl().bytes());
    }
}

TEST_CASE("who waits for a lock must be able to read the node before its own") {
    Alone rig;
    const Sync zk = rig.open(), other = rig.open();
    REQUIRE(zk.add_auth("digest", user));
    REQUIRE(zk.create_with_parents("/locks/door", ""));
    for (const Acl& acl : {coord::creator_acl(), coord::read_only_acl().add(31, "auth", "")}) {
        coord::Lock lock(zk.session(), "/locks/door", acl), theirs(other.session(), "/locks/door");
        const auto grant =
            zk.wait<coord::Grant>([&](coord::OnGranted done) { lock.acquire(std::move(done)); });
        REQUIRE(grant);
        std::vector<Errc> told;
        theirs.acquire([&](const Result<coord::Grant>& result) { told.push_back(result.error()); });
        rig.polls();
        const bool is_private = acl == coord::creator_acl();
        CHECK(told == (is_private ? std::vector<Errc>{Errc::no_auth} : std::vector<Errc>{}));
        lock.release({});
        rig.polls();
        CHECK(told == std::vector<Errc>{is_private ? Errc::no_auth : Errc::ok});
    }
    rig.polls();
    CHECK(zk.children("/locks/door")->names.empty());
}

TEST_CASE("a lock whose nodes have an ACL") {
    Alone rig;
    const Sync zk = rig.open(), other = rig.open();
    REQUIRE(zk.add_auth("digest", user));
    {
        coord::Lock lock(zk.session(), "/locks/door", coord::creator_acl());
        const auto grant =
            zk.wait<coord::Grant>([&](coord::OnGranted done) { lock.acquire(std::move(done)); });
        REQUIRE(grant);
        for (const Bytes& path : {Bytes("/locks"), Bytes("/locks/door"), grant->node}) {
            CHECK(rig.replica.tree().find(path)->acl == private_acl().bytes());
        }
        coord::Lock theirs(other.session(), "/locks/door");
        const auto refused = other.wait<coord::Grant>(
            [&](coord::OnGranted done) { theirs.acquire(std::move(done)); });
        CHECK(refused.error() == Errc::no_auth);
    }
    rig.polls();
    CHECK(zk.children("/locks/door")->names.empty());
}
}
