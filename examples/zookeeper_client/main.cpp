// The shell's way to an ensemble of ZooKeeper's, and a program to copy from: one session, one
// command, and the sockets of sockets.hpp in a loop.
//
//     zookeeper_client HOST:PORT[,HOST:PORT...][/DIRECTORY] COMMAND ...
//
//     ls PATH                       the names of the children, a line each
//     get PATH                      the value
//     stat PATH                     the Stat, a line for each number
//     create [-e] [-s] PATH [VALUE] -e: ephemeral, until this ends by ^C; -s: with a number
//     set PATH VALUE [VERSION]
//     rm PATH [VERSION]
//     watch PATH                    a line for each change at the path and below it, until ^C
//     lock PATH COMMAND ...         runs the command while the lock is held; its exit status
//
// Exits with 1 where that fails, 2 where it is called wrongly. COORD_AUTH=user:password: who asks.
#include "zookeeper_client/sockets.hpp"

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include <sys/wait.h>

namespace {

using coord::Bytes;
using coord::CreateMode;
using coord::Errc;
using coord::Result;
using Arguments = std::vector<std::string>;

volatile std::sig_atomic_t is_told_to_end = 0;

class Program {
public:
    explicit Program(const zookeeper_client::Options& options) : client_(options, sockets_) {}
    int run(const Arguments& arguments) {
        const coord::Time limit = zkserver::read_clock() + coord::seconds(10);
        const auto opened = coord::Sync::open(client_, {}, [&, limit] {
            return turn() && zkserver::read_clock() < limit;
        });
        if (!opened) return fail("no session", opened.error());
        const coord::Sync zk(*opened, [this] { return turn(); });
        const char* const who = std::getenv("COORD_AUTH");
        if (who != nullptr) {
            const auto known = zk.add_auth("digest", who);
            if (!known) return fail("COORD_AUTH", known.error());
        }
        const int status = command(zk, arguments);
        // A session that is not closed keeps its nodes until it expires. Whoever ends this by a
        // signal does not wait for a server that is not there.
        is_told_to_end = 0;
        const coord::Time close_by = zkserver::read_clock() + coord::seconds(2);
        (void)coord::Sync(*opened, [&, close_by] {
            return turn() && zkserver::read_clock() < close_by;
        }).close();
        return status;
    }

private:
    bool turn() {
        sockets_.turn(client_, coord::milliseconds(100));
        return is_told_to_end == 0;
    }
    static int fail(const std::string& what, Errc error) {
        std::fprintf(stderr, "%s: %s. %s\n", what.c_str(), coord::name(error), coord::text(error));
        return 1;
    }
    static int wrong() {
        std::fprintf(stderr, "zookeeper_client HOST:PORT[,...][/DIRECTORY] ls|get|stat|create|set|"
                             "rm|watch|lock PATH ...\n");
        return 2;
    }
    int command(const coord::Sync& zk, const Arguments& arguments) {
        if (arguments.size() < 2) return wrong();
        const std::string& name = arguments[0];
        const std::string& path = arguments[1];
        if (name == "ls") {
            const auto found = zk.children(path);
            if (!found) return fail(path, found.error());
            for (const Bytes& child : found->names) std::printf("%s\n", child.c_str());
        } else if (name == "get") {
            const auto found = zk.get(path);
            if (!found) return fail(path, found.error());
            std::fwrite(found->bytes.data(), 1, found->bytes.size(), stdout);
            std::printf("\n");
        } else if (name == "stat") {
            return stat(zk, path);
        } else if (name == "create") {
            return create(zk, arguments);
        } else if (name == "set" && arguments.size() > 2) {
            const auto set = zk.set(path, arguments[2], version_of(arguments, 3));
            if (!set) return fail(path, set.error());
        } else if (name == "rm") {
            const auto gone = zk.remove(path, version_of(arguments, 2));
            if (!gone) return fail(path, gone.error());
        } else if (name == "watch") {
            return watch(zk, path);
        } else if (name == "lock" && arguments.size() > 2) {
            return lock(zk, arguments);
        } else {
            return wrong();
        }
        return 0;
    }
    static std::int32_t version_of(const Arguments& arguments, std::size_t place) {
        return arguments.size() > place ? std::atoi(arguments[place].c_str()) : coord::any_version;
    }
    static int stat(const coord::Sync& zk, const std::string& path) {
        const auto found = zk.exists(path);
        if (!found) return fail(path, found.error());
        const auto hex = [](const char* name, std::uint64_t value) {
            std::printf("%s 0x%llx\n", name, static_cast<unsigned long long>(value));
        };
        hex("czxid", found->czxid.value), hex("mzxid", found->mzxid.value);
        hex("pzxid", found->pzxid.value), hex("owner", found->ephemeral_owner.value);
        std::printf("ctime %lld\nmtime %lld\nversion %d\ncversion %lld\naversion %d\n"
                    "length %d\nchildren %d\n",
                    static_cast<long long>(found->ctime_ms),
                    static_cast<long long>(found->mtime_ms), found->version,
                    static_cast<long long>(found->cversion), found->aversion, found->data_length,
                    found->num_children);
        return 0;
    }
    int create(const coord::Sync& zk, const Arguments& arguments) {
        bool is_ephemeral = false, is_numbered = false;
        std::size_t place = 1;
        for (; place < arguments.size() && arguments[place][0] == '-'; place++) {
            if (arguments[place] == "-e") is_ephemeral = true;
            else if (arguments[place] == "-s") is_numbered = true;
            else return wrong();
        }
        if (place == arguments.size()) return wrong();
        const CreateMode mode = is_ephemeral ? (is_numbered ? CreateMode::ephemeral_sequential
                                                            : CreateMode::ephemeral)
                                             : (is_numbered ? CreateMode::persistent_sequential
                                                            : CreateMode::persistent);
        const std::string value = place + 1 < arguments.size() ? arguments[place + 1] : "";
        const auto made = zk.create(arguments[place], value, mode);
        if (!made) return fail(arguments[place], made.error());
        std::printf("%s\n", made->path.c_str()), std::fflush(stdout);
        while (is_ephemeral && is_alive(zk)) turn();
        return 0;
    }
    static bool is_alive(const coord::Sync& zk) {
        return is_told_to_end == 0 && zk.session().state() != coord::SessionState::expired;
    }
    int watch(const coord::Sync& zk, const std::string& path) {
        zk.session().on_state([](coord::SessionState state) {
            std::printf("%s\n", coord::name(state)), std::fflush(stdout);
        });
        const auto set = zk.add_watch(path, coord::AddWatchMode::persistent_recursive,
                                      [](const coord::WatchEvent& event) {
            const char* const what = event.type == coord::EventType::created   ? "created"
                                     : event.type == coord::EventType::deleted ? "deleted"
                                                                               : "changed";
            std::printf("%s %s\n", what, event.path.c_str()), std::fflush(stdout);
        });
        if (!set) return fail(path, set.error());
        std::printf("watching %s\n", path.c_str()), std::fflush(stdout);
        while (is_alive(zk)) turn();
        return is_told_to_end != 0 ? 0 : fail(path, Errc::session_expired);
    }
    // The command has the token in COORD_FENCING_TOKEN. Where the lock is not certain any more it
    // is told to end.
    int lock(const coord::Sync& zk, const Arguments& arguments) {
        coord::Lock lock(zk.session(), arguments[1]);
        const auto grant = zk.wait<coord::Grant>([&](auto done) { lock.acquire(done); });
        if (!grant) return fail(arguments[1], grant.error());
        const pid_t child = ::fork();
        if (child == 0) {
            ::setenv("COORD_FENCING_TOKEN", std::to_string(grant->fencing_token).c_str(), 1);
            std::vector<char*> words;
            for (std::size_t i = 2; i < arguments.size(); i++) {
                words.push_back(const_cast<char*>(arguments[i].c_str()));
            }
            words.push_back(nullptr);
            ::execvp(words[0], words.data());
            std::fprintf(stderr, "%s: %s\n", words[0], std::strerror(errno));
            ::_exit(127);
        }
        if (child < 0) return std::perror("fork"), 1;
        int status = 0;
        bool is_killed = false;
        while (::waitpid(child, &status, WNOHANG) == 0) {
            sockets_.turn(client_, coord::milliseconds(20));
            const bool is_over = !lock.is_held(client_.now()) || is_told_to_end != 0;
            if (is_over && !is_killed) ::kill(child, SIGTERM), is_killed = true;
        }
        const bool was_held = lock.is_held(client_.now());
        (void)zk.wait<void>([&](auto done) { lock.release(done); });
        if (is_killed && !was_held) return fail(arguments[1], Errc::lock_lost);
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

    zookeeper_client::Sockets sockets_;
    zookeeper_client::Client client_;
};

void on_signal(int) { is_told_to_end = 1; }

}  // namespace

int main(int argc, char** argv) {
    zookeeper_client::Options options;
    const std::string error = argc < 3 ? "" : options.read(argv[1]);
    if (!error.empty()) std::fprintf(stderr, "%s\n", error.c_str());
    if (!error.empty()) return 2;
    std::random_device random;
    options.entropy = std::uint64_t{random()} << 32 | random();
    std::signal(SIGINT, on_signal), std::signal(SIGTERM, on_signal);
    if (argc < 3) {
        std::fprintf(stderr, "zookeeper_client HOST:PORT[,HOST:PORT...][/DIRECTORY] COMMAND ...\n");
        return 2;
    }
    return Program(options).run(Arguments(argv + 2, argv + argc));
}
