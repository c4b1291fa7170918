// The trace of a simulation as a log for ShiViz, which draws who could know of what: each event
// with a vector clock. What is written is read there with the parser that ShiViz proposes,
//
//     (?<event>.*)\n(?<host>\S*) (?<clock>{.*})
//
// It needs trace_text() alone, so that a trace that was kept as text can be drawn later.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace support {

class Shiviz {
public:
    // RETURNS the log of a trace_text(). Heartbeats are left out, if that is asked for.
    static std::string of(const std::string& trace, bool with_heartbeats = false) {
        Shiviz log;
        for (std::size_t at = 0; at < trace.size();) {
            const std::size_t end = (std::min)(trace.find('\n', at), trace.size());
            log.read(trace.substr(at, end - at), with_heartbeats);
            at = end + 1;
        }
        return log.write();
    }

private:
    using Clock = std::map<std::string, std::uint64_t>;
    static constexpr std::size_t none = SIZE_MAX;
    // The columns of trace_text().
    static constexpr std::size_t way_column = 14, from_column = 22;
    static constexpr std::size_t to_column = 30, what_column = 34;

    // At one time: what comes, what a replica does of it, and what it sends then.
    enum Rank { comes, does, sends, comes_at_once };
    struct Event {
        std::uint64_t at = 0;  // microseconds
        Rank rank = does;
        std::string host;
        std::string text;
        std::size_t message = none;  // that is sent, or comes
    };

    static std::string word(const std::string& line, std::size_t from, std::size_t to) {
        std::string text = line.substr(from, to - from);
        text.erase(std::remove(text.begin(), text.end(), ' '), text.end());
        return text;
    }
    static std::uint64_t number(const std::string& digits) {
        std::uint64_t value = 0;
        for (const char c : digits) value = c == '.' ? value : value * 10 + std::uint64_t(c - '0');
        return value;
    }

    void read(const std::string& line, bool with_heartbeats) {
        if (line.size() < what_column) return;
        const std::uint64_t at = number(word(line, 0, way_column));
        const std::string way = word(line, way_column, from_column);
        std::string host = word(line, from_column, from_column + 4);
        host = host == "-" ? "test" : "R" + host;
        const std::string text = line.substr(what_column);
        if (way.empty()) {
            events_.push_back({at, does, host, text, none});
            return;
        }
        const bool is_beat = text.compare(0, 4, "PING") == 0 || text.compare(0, 4, "PONG") == 0;
        if (is_beat && !with_heartbeats) return;
        const std::string to = "R" + word(line, to_column, what_column);
        const bool is_lost = line.find("-x") == to_column - 3;
        const std::size_t message = messages_.size();
        messages_.emplace_back();
        const std::string lost = is_lost ? ", lost" : "";
        events_.push_back({at - number(way), sends, host, text + " to " + to + lost, message});
        if (is_lost) return;
        const Rank rank = number(way) > 0 ? comes : comes_at_once;
        events_.push_back({at, rank, to, text + " from " + host, message});
    }

    std::string write() {
        const auto is_before = [](const Event& a, const Event& b) {
            return a.at != b.at ? a.at < b.at : a.rank < b.rank;
        };
        std::stable_sort(events_.begin(), events_.end(), is_before);
        std::map<std::string, Clock> clocks;
        std::string out;
        for (const Event& event : events_) {
            Clock& own = clocks[event.host];
            if (event.rank == comes || event.rank == comes_at_once) {
                for (const auto& [host, count] : messages_[event.message]) {
                    own[host] = (std::max)(own[host], count);
                }
            }
            own[event.host] += 1;
            if (event.rank == sends) messages_[event.message] = own;
            out += event.text + "\n" + event.host + " {";
            std::string between;
            for (const auto& [host, count] : own) {
                out += between + "\"" + host + "\":" + std::to_string(count);
                between = ", ";
            }
            out += "}\n";
        }
        return out;
    }

    std::vector<Event> events_;
    std::vector<Clock> messages_;  // what their senders knew
};

}  // namespace support
