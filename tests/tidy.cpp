// The rules of the style that a program can see. Each rule is a function from a text to findings,
// so that the tests at the end can hand it a bad text and see that it does find something.

#include <doctest/doctest.h>

#include <algorithm>
#include <cctype>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#ifndef COORD_TEST_SOURCE_DIR
#    define COORD_TEST_SOURCE_DIR "."
#endif

namespace {

using Strings = std::vector<std::string>;

// -------------------------------------------------------------------------------------------------
// Texts

bool is_word(char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; }

bool starts_with(const std::string& s, const std::string& prefix) {
    return s.compare(0, prefix.size(), prefix) == 0;
}

bool contains(const std::string& s, const std::string& part) {
    return s.find(part) != std::string::npos;
}

std::string trim(const std::string& s) {
    std::size_t first = s.find_first_not_of(" \t\r");
    if (first == std::string::npos) return "";
    return s.substr(first, s.find_last_not_of(" \t\r") - first + 1);
}

// The first occurrence at or after `from` of `word` that is not part of a longer word.
std::size_t find_word(const std::string& s, const std::string& word, std::size_t from = 0) {
    for (std::size_t at = s.find(word, from); at != std::string::npos; at = s.find(word, at + 1)) {
        bool open = at == 0 || !is_word(s[at - 1]) || !is_word(word.front());
        std::size_t end = at + word.size();
        bool closed = end == s.size() || !is_word(s[end]) || !is_word(word.back());
        if (open && closed) return at;
    }
    return std::string::npos;
}

bool has_word(const std::string& s, const std::string& word) {
    return find_word(s, word) != std::string::npos;
}

Strings split_lines(const std::string& text) {
    Strings lines;
    std::istringstream in{text};
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

// The text with every comment, and what is inside of string and character literals, made blank.
// Lines and columns stay where they are.
class Blanker {
public:
    explicit Blanker(const std::string& text) : in_{text}, out_{text} {}

    std::string run() {
        while (at_ < in_.size()) {
            if (next_is("//")) {
                line_comment();
            } else if (next_is("/*")) {
                std::size_t end = in_.find("*/", at_ + 2);
                blank_to(end == std::string::npos ? in_.size() : end + 2);
            } else if (in_[at_] == '"' && raw_prefix()) {
                raw_string();
            } else if (in_[at_] == '"' || (in_[at_] == '\'' && !digit_separator())) {
                literal(in_[at_]);
            } else {
                ++at_;
            }
        }
        return out_;
    }

private:
    bool next_is(const char* s) const { return in_.compare(at_, 2, s) == 0; }

    bool raw_prefix() const {
        if (at_ == 0 || in_[at_ - 1] != 'R') return false;
        std::size_t start = at_ - 1;
        while (start > 0 && is_word(in_[start - 1])) --start;
        std::string prefix = in_.substr(start, at_ - start);
        static const Strings raw{"R", "u8R", "uR", "UR", "LR"};
        return std::find(raw.begin(), raw.end(), prefix) != raw.end();
    }

    bool digit_separator() const {  // the quote in 1'000
        std::size_t start = at_;
        while (start > 0 && (is_word(in_[start - 1]) || in_[start - 1] == '\'')) --start;
        return start < at_ && std::isdigit(static_cast<unsigned char>(in_[start])) != 0;
    }

    void blank_to(std::size_t end) {
        for (; at_ < end && at_ < in_.size(); ++at_) {
            if (out_[at_] != '\n') out_[at_] = ' ';
        }
    }

    void line_comment() {
        std::size_t end = in_.find('\n', at_);
        while (end != std::string::npos && in_[end - 1] == '\\') end = in_.find('\n', end + 1);
        blank_to(end);
    }

    void literal(char quote) {
        std::size_t end = at_ + 1;
        while (end < in_.size() && in_[end] != quote && in_[end] != '\n') {
            end += in_[end] == '\\' ? 2u : 1u;
        }
        ++at_;
        blank_to(end);
        if (at_ < in_.size()) ++at_;
    }

    void raw_string() {
        std::size_t open = in_.find('(', at_);
        if (open == std::string::npos) return blank_to(in_.size());
        std::string close = ")" + in_.substr(at_ + 1, open - at_ - 1) + "\"";
        std::size_t end = in_.find(close, open);
        ++at_;
        blank_to(end == std::string::npos ? in_.size() : end + close.size() - 1);
        if (at_ < in_.size()) ++at_;
    }

    const std::string& in_;
    std::string out_;
    std::size_t at_ = 0;
};

struct Source {
    explicit Source(const std::string& all)
        : text{all}, lines{split_lines(all)}, code{split_lines(Blanker{all}.run())} {}

    std::string text;
    Strings lines;  // as written
    Strings code;   // without comments and literals; as many lines
};

struct Finding {
    std::size_t line;  // counted from 1; 0 where there is none
    std::string what;
};

using Findings = std::vector<Finding>;

std::string report(const std::string& file, const Findings& findings) {
    std::string out;
    for (const Finding& f : findings) {
        out += "\n  " + file + ":" + std::to_string(f.line) + ": " + f.what;
    }
    return out;
}

// -------------------------------------------------------------------------------------------------
// Rules for any source file

Findings rule_layout(const Source& source) {
    Findings found;
    for (std::size_t i = 0; i < source.lines.size(); ++i) {
        const std::string& line = source.lines[i];
        if (line.size() > 100) found.push_back({i + 1, std::to_string(line.size()) + " columns"});
        if (contains(line, "\t")) found.push_back({i + 1, "a tab"});
        if (!line.empty() && (line.back() == ' ' || line.back() == '\r')) {
            found.push_back({i + 1, "a blank at the end"});
        }
        for (char c : line) {
            if (static_cast<unsigned char>(c) >= 0x80) {
                found.push_back({i + 1, "not ASCII"});
                break;
            }
        }
    }
    if (!source.text.empty() && source.text.back() != '\n') {
        found.push_back({source.lines.size(), "no newline at the end"});
    }
    return found;
}

Findings rule_postponed(const Source& source) {
    Findings found;
    for (std::size_t i = 0; i < source.lines.size(); ++i) {
        for (const char* word : {"TO"
                                 "DO",
                                 "FIX"
                                 "ME",
                                 "XX"
                                 "X"}) {
            if (has_word(source.lines[i], word)) found.push_back({i + 1, word});
        }
    }
    return found;
}

// -------------------------------------------------------------------------------------------------
// Functions: a block at namespace or class level that follows a parameter list.

struct Function {
    std::string name;
    std::size_t first;
    std::size_t last;
};

class FunctionScanner {
public:
    explicit FunctionScanner(const Source& source) : code_{source.code} {}

    std::vector<Function> run() {
        bool directive = false;
        for (line_ = 0; line_ < code_.size(); ++line_) {
            const std::string& line = code_[line_];
            std::string start = trim(line);
            bool is_directive = directive || (!start.empty() && start[0] == '#');
            directive = is_directive && !start.empty() && start.back() == '\\';
            if (is_directive) continue;
            for (char c : line) take(c);
            if (!heading_.empty()) heading_ += ' ';
        }
        return std::move(functions_);
    }

    bool balanced() const { return balanced_ && blocks_.empty(); }

private:
    enum class Block { scope, function, other };

    void take(char c) {
        bool inside = !blocks_.empty() && blocks_.back() != Block::scope;
        if (c == '{') {
            open(inside ? Block::other : classify());
        } else if (c == '}') {
            close();
        } else if (inside) {
            return;
        } else if (c == ';') {
            reset();
        } else if (c != ' ' || !heading_.empty()) {
            if (c == '(' && name_line_ == 0) name_line_ = line_ + 1;
            heading_ += c;
        }
    }

    void reset() {
        heading_.clear();
        name_line_ = 0;
    }

    void open(Block kind) {
        blocks_.push_back(kind);
        if (kind == Block::scope) reset();
        if (kind == Block::function) {
            std::size_t paren = heading_.find('(');
            std::size_t end = heading_.find_last_not_of(' ', paren - 1);
            std::size_t start = end;
            while (start != std::string::npos && start > 0 && heading_[start - 1] != ' ') --start;
            functions_.push_back({heading_.substr(start, end + 1 - start), name_line_, 0});
        }
    }

    void close() {
        if (blocks_.empty()) {
            balanced_ = false;
            return;
        }
        Block kind = blocks_.back();
        blocks_.pop_back();
        if (kind == Block::function) functions_.back().last = line_ + 1;
        // A braced initializer belongs to the statement around it; the others end theirs.
        if (kind == Block::other) {
            if (blocks_.empty() || blocks_.back() == Block::scope) heading_ += '}';
        } else {
            reset();
        }
    }

    // What the `{` after the present heading opens.
    Block classify() const {
        std::string head = trim(heading_);
        auto opened = std::count(head.begin(), head.end(), '(');
        if (opened != std::count(head.begin(), head.end(), ')')) return Block::other;  // f(X{1})
        bool parens = contains(head, ")");
        if (has_word(head, "namespace") && !parens) return Block::scope;
        if (starts_with(head, "extern") && contains(head, "\"") && !parens) return Block::scope;
        std::string bare = without_template(head);
        for (const char* word : {"class", "struct", "union", "enum"}) {
            std::size_t at = find_word(bare, word);
            if (at != std::string::npos && at < bare.find('(')) return Block::scope;
        }
        if (!parens) return Block::other;
        // A member initializer: `Name(...) : member_{`, against the body in `member_{0} {`.
        std::size_t list = head.find(") :");
        bool colons = list != std::string::npos && head.compare(list, 4, ") ::") != 0;
        bool initializer = is_word(head.back()) || head.back() == '>' || head.back() == ',';
        if (colons && initializer) return Block::other;
        return head.back() == '=' ? Block::other : Block::function;
    }

    static std::string without_template(const std::string& head) {
        std::string rest = head;
        while (starts_with(rest, "template")) {
            std::size_t at = rest.find('<');
            if (at == std::string::npos) return rest;
            int depth = 0;
            for (; at < rest.size(); ++at) {
                if (rest[at] == '<') ++depth;
                if (rest[at] == '>' && --depth == 0) break;
            }
            rest = at < rest.size() ? trim(rest.substr(at + 1)) : "";
        }
        return rest;
    }

    const Strings& code_;
    std::vector<Function> functions_;
    std::vector<Block> blocks_;
    std::string heading_;        // since the last statement of this level
    std::size_t name_line_ = 0;  // where the heading's first parenthesis is
    std::size_t line_ = 0;
    bool balanced_ = true;
};

Findings rule_functions(const Source& source, std::size_t lines_max) {
    Findings found;
    FunctionScanner scanner{source};
    for (const Function& f : scanner.run()) {
        std::size_t lines = f.last + 1 - f.first;
        if (f.last == 0) {
            found.push_back({f.first, f.name + " does not end"});
        } else if (lines > lines_max) {
            found.push_back({f.first, f.name + " has " + std::to_string(lines) + " lines"});
        }
    }
    if (!scanner.balanced()) found.push_back({source.lines.size(), "braces do not balance"});
    return found;
}

// -------------------------------------------------------------------------------------------------
// Rules for coord.hpp: words, macros, includes

Findings rule_words(const Source& source) {
    static const Strings banned{"throw",           "try",          "catch",     "dynamic_cast",
                                "typeid",          "std::cout",    "std::cerr", "iostream",
                                "using namespace", "thread_local", "std::any",  "goto"};
    Findings found;
    for (std::size_t i = 0; i < source.code.size(); ++i) {
        const std::string& line = source.code[i];
        for (const std::string& word : banned) {
            if (has_word(line, word)) found.push_back({i + 1, word});
        }
        // With windows.h, `min(` is a macro; `(std::min)(` and `(limits::max)()` are not.
        for (const char* word : {"min", "max"}) {
            for (std::size_t at = find_word(line, word); at != std::string::npos;
                 at = find_word(line, word, at + 1)) {
                std::size_t next = line.find_first_not_of(' ', at + 3);
                if (next != std::string::npos && line[next] == '(') {
                    found.push_back({i + 1, std::string{word} + " without parentheses around it"});
                }
            }
        }
    }
    return found;
}

// The macro that a line defines, or "".
std::string defined_macro(const std::string& line) {
    std::string s = trim(line);
    if (s.empty() || s[0] != '#') return "";
    s = trim(s.substr(1));
    if (!starts_with(s, "define ")) return "";
    s = trim(s.substr(7));
    std::size_t end = 0;
    while (end < s.size() && is_word(s[end])) ++end;
    return s.substr(0, end);
}

Findings rule_macros(const Source& source) {
    Findings found;
    for (std::size_t i = 0; i < source.code.size(); ++i) {
        std::string name = defined_macro(source.code[i]);
        if (name == "WIN32_LEAN_AND_MEAN" || name == "NOMINMAX") continue;  // windows.h reads them
        if (!name.empty() && !starts_with(name, "COORD_")) {
            found.push_back({i + 1, "the macro " + name});
        }
    }
    return found;
}

// The line where Part Two begins: the first that asks for COORD_IMPLEMENTATION. The number of lines
// where there is none.
std::size_t part_two_line(const Source& source) {
    for (std::size_t i = 0; i < source.code.size(); ++i) {
        std::string s = trim(source.code[i]);
        if (starts_with(s, "#if") && has_word(s, "COORD_IMPLEMENTATION")) return i;
    }
    return source.code.size();
}

Findings rule_includes(const Source& source) {
    static const Strings budget{"array",  "cassert",     "cstddef",     "cstdint", "map",
                                "memory", "new",         "optional",    "string",  "string_view",
                                "type_traits", "utility", "vector"};
    Findings found;
    for (std::size_t i = 0; i < part_two_line(source); ++i) {
        std::string s = trim(source.lines[i]);
        if (!starts_with(trim(source.code[i]), "#") || !contains(s, "include")) continue;
        s = trim(s.substr(1));
        if (!starts_with(s, "include")) continue;
        std::string name = trim(s.substr(7));
        std::size_t end = name.find('>');
        bool standard = !name.empty() && name[0] == '<' && end != std::string::npos;
        if (standard) name = name.substr(1, end - 1);
        if (!standard || std::find(budget.begin(), budget.end(), name) == budget.end()) {
            found.push_back({i + 1, "Part One includes " + name});
        }
    }
    return found;
}

// The system's headers: in Part Two, chapter 6 alone.
Findings rule_system_includes(const Source& source) {
    Findings found;
    bool is_allowed = false;
    for (std::size_t i = 0; i < source.lines.size(); ++i) {
        if (contains(source.lines[i], ", chapter ")) {
            is_allowed = contains(source.lines[i], "// Part Two, chapter 6:");
        }
        const std::string s = trim(source.lines[i]);
        const bool is_system = starts_with(s, "#") && contains(s, "include") && contains(s, ".h>");
        if (is_system && !is_allowed) found.push_back({i + 1, "a header of the system: " + s});
    }
    return found;
}

// "1.2.3" from the version macros.
std::string header_version(const Source& source) {
    std::string version;
    for (const char* part : {"MAJOR", "MINOR", "PATCH"}) {
        std::string number = "?";
        for (const std::string& line : source.code) {
            std::string macro = std::string{"COORD_VERSION_"} + part;
            if (defined_macro(line) != macro) continue;
            number = trim(line.substr(line.find(macro) + macro.size()));
        }
        version += (version.empty() ? "" : ".") + number;
    }
    return version;
}

// -------------------------------------------------------------------------------------------------
// Rules for coord.hpp: chapters

struct Chapter {
    int part;  // 0 in the index
    int number;
    std::string title;
    std::size_t line;  // of the title, counted from 0
};

// Reads "12  Replica   what it holds" (two blanks between): the number and the title.
bool read_index_line(const std::string& line, int& number, std::string& title) {
    if (!starts_with(line, "//")) return false;
    std::string s = trim(line.substr(2));
    std::size_t digits = 0;
    while (digits < s.size() && std::isdigit(static_cast<unsigned char>(s[digits])) != 0) ++digits;
    if (digits == 0 || digits > 3 || s.compare(digits, 2, "  ") != 0) return false;
    number = std::atoi(s.substr(0, digits).c_str());
    s = trim(s.substr(digits));
    title = s.substr(0, s.find("  "));
    return true;
}

std::vector<Chapter> read_index(const Source& source) {
    std::vector<Chapter> chapters;
    bool inside = false;
    for (std::size_t i = 0; i < source.lines.size(); ++i) {
        const std::string& line = source.lines[i];
        if (line == "// Index") inside = true;
        if (line == "// End of the index") return chapters;
        Chapter chapter{0, 0, "", i};
        if (inside && read_index_line(line, chapter.number, chapter.title)) {
            chapters.push_back(chapter);
        }
    }
    return {};  // the index does not end
}

// The banners of one part, as they come.
std::vector<Chapter> read_banners(const Source& source, int part) {
    std::string start = part == 1 ? "// Part One, chapter " : "// Part Two, chapter ";
    std::vector<Chapter> chapters;
    for (std::size_t i = 0; i < source.lines.size(); ++i) {
        const std::string& line = source.lines[i];
        std::size_t colon = line.find(": ");
        if (!starts_with(line, start) || colon == std::string::npos) continue;
        int number = std::atoi(line.substr(start.size(), colon - start.size()).c_str());
        chapters.push_back({part, number, trim(line.substr(colon + 2)), i});
    }
    return chapters;
}

std::string spell(const Chapter& chapter) {
    return std::to_string(chapter.number) + " " + chapter.title;
}

Findings rule_banners(const Source& source) {
    const std::string bar = "// " + std::string(97, '=');
    const std::size_t part_two = part_two_line(source);
    Findings found;
    for (int part = 1; part <= 2; ++part) {
        for (const Chapter& c : read_banners(source, part)) {
            bool above = c.line > 0 && source.lines[c.line - 1] == bar;
            bool below = c.line + 1 < source.lines.size() && source.lines[c.line + 1] == bar;
            if (!above || !below) found.push_back({c.line + 1, "no bar around " + spell(c)});
            if ((c.line < part_two) != (part == 1)) {
                found.push_back({c.line + 1, spell(c) + " is in the other part"});
            }
        }
    }
    return found;
}

// Part One has the index's chapters; Part Two as well, but for chapter 0, which may have no code.
Findings rule_chapters(const Source& source) {
    Findings found;
    const std::vector<Chapter> index = read_index(source);
    if (index.empty()) found.push_back({0, "no index"});
    for (int part = 1; part <= 2; ++part) {
        std::vector<Chapter> expected = index;
        const std::vector<Chapter> banners = read_banners(source, part);
        bool has_zero = !banners.empty() && banners.front().number == 0;
        if (part == 2 && !has_zero && !expected.empty() && expected.front().number == 0) {
            expected.erase(expected.begin());
        }
        for (std::size_t i = 0; i < (std::max)(expected.size(), banners.size()); ++i) {
            std::string want = i < expected.size() ? spell(expected[i]) : "nothing";
            std::string have = i < banners.size() ? spell(banners[i]) : "nothing";
            if (want == have) continue;
            std::size_t line = i < banners.size() ? banners[i].line + 1 : 0;
            found.push_back({line, "the index says \"" + want + "\", Part " +
                                       (part == 1 ? "One" : "Two") + " \"" + have + "\""});
            break;  // the rest is shifted
        }
    }
    for (std::size_t i = 1; i < index.size(); ++i) {
        if (index[i].number != index[i - 1].number + 1) {
            found.push_back({index[i].line + 1, "not the next number: " + spell(index[i])});
        }
    }
    return found;
}

// The comment below the banner of each chapter of Part One says what a reader must know first.
Findings rule_openings(const Source& source) {
    Findings found;
    for (const Chapter& chapter : read_banners(source, 1)) {
        std::string opening;
        for (std::size_t i = chapter.line + 2; i < source.lines.size(); ++i) {
            std::string line = trim(source.lines[i]);
            if (!line.empty() && !starts_with(line, "//")) break;
            if (starts_with(line, "// =====")) break;
            opening += line + "\n";
        }
        for (const char* word : {"Purpose", "Invariants", "May touch"}) {
            if (!has_word(opening, word)) {
                found.push_back({chapter.line + 1, spell(chapter) + " opens without " + word});
            }
        }
    }
    return found;
}

struct Density {
    std::size_t asserts = 0;
    std::size_t code_lines = 0;

    double per_thousand() const {
        if (code_lines == 0) return 0;
        return 1000.0 * static_cast<double>(asserts) / static_cast<double>(code_lines);
    }
};

// COORD_ASSERT and its kin, and lines that hold code, in one chapter of Part Two.
Density density(const Source& source, int chapter) {
    const std::vector<Chapter> banners = read_banners(source, 2);
    Density d;
    for (std::size_t k = 0; k < banners.size(); ++k) {
        if (banners[k].number != chapter) continue;
        std::size_t end = k + 1 < banners.size() ? banners[k + 1].line : source.code.size();
        for (std::size_t i = banners[k].line; i < end; ++i) {
            const std::string& line = source.code[i];
            if (trim(line).empty()) continue;
            ++d.code_lines;
            const std::string word = "COORD_ASSERT";
            for (std::size_t at = line.find(word); at != std::string::npos;
                 at = line.find(word, at + 1)) {
                if (at == 0 || !is_word(line[at - 1])) ++d.asserts;
            }
        }
    }
    return d;
}

// -------------------------------------------------------------------------------------------------
// Scenarios: each has a test that says so in its name, or a line in the list

// The two catalogues: a letter and how many there are of it.
struct Letter {
    const char* catalogue;
    char letter;
    int count;
};
constexpr Letter catalogue[] = {
    {"ZooKeeper", 'A', 28}, {"ZooKeeper", 'B', 13}, {"ZooKeeper", 'C', 13}, {"ZooKeeper", 'D', 11},
    {"ZooKeeper", 'E', 6},  {"ZooKeeper", 'F', 11}, {"ZooKeeper", 'G', 5},  {"faults", 'C', 25},
    {"faults", 'D', 25},    {"faults", 'H', 12},    {"faults", 'L', 10},    {"faults", 'M', 12},
    {"faults", 'N', 17},    {"faults", 'S', 10},    {"faults", 'T', 15},
};

// Those that a text names: "faults D1 D2, ZooKeeper A24: ..." has three.
Strings scenarios_of(const std::string& text) {
    Strings all;
    for (const char* const which : {"ZooKeeper", "faults"}) {
        const std::string word = which;
        for (std::size_t at = find_word(text, word); at != std::string::npos;
             at = find_word(text, word, at + 1)) {
            std::istringstream rest(text.substr(at + word.size()));
            for (std::string each; rest >> each;) {
                const bool is_last = each.back() == ',' || each.back() == ':';
                if (is_last) each.pop_back();
                const bool is_number = each.size() > 1 &&
                                       each.find_first_not_of("0123456789", 1) == std::string::npos;
                if (!is_number || each[0] < 'A' || each[0] > 'Z') break;
                all.push_back(word + " " + each);
            }
        }
    }
    return all;
}

// What stands in the names of a file's tests, one a line.
std::string names_of_tests(const std::string& text) {
    std::string all;
    const std::string opening = "TEST_CASE(\"";
    for (std::size_t at = text.find(opening); at != std::string::npos;
         at = text.find(opening, at + 1)) {
        const std::size_t begin = at + opening.size();
        all += text.substr(begin, text.find('"', begin) - begin) + "\n";
    }
    return all;
}

// read: a file by its name, or "" where there is none.
template <class Read>
Findings rule_scenarios(const std::string& list, Strings named, Read&& read) {
    Findings all;
    Strings known;
    const Strings lines = split_lines(list);
    for (std::size_t i = 0; i < lines.size(); ++i) {
        if (trim(lines[i]).empty() || lines[i][0] == '#') continue;
        Strings fields;
        std::istringstream in{lines[i]};
        for (std::string field; std::getline(in, field, '|');) fields.push_back(trim(field));
        const Strings these = scenarios_of(lines[i].substr(0, lines[i].find('|')));
        if (these.empty() || fields.size() != 3 || fields[2].empty()) {
            all.push_back({i + 1, "not: names | file | words"});
            continue;
        }
        if (fields[1] != "-" && !contains(read(fields[1]), fields[2])) {
            all.push_back({i + 1, "does not stand in " + fields[1] + ": " + fields[2]});
        }
        named.insert(named.end(), these.begin(), these.end());
    }
    for (const Letter& each : catalogue) {
        for (int number = 1; number <= each.count; ++number) {
            known.push_back(std::string(each.catalogue) + " " + each.letter +
                            std::to_string(number));
            if (std::count(named.begin(), named.end(), known.back()) > 0) continue;
            all.push_back({0, known.back() + " has neither a test nor a reason"});
        }
    }
    for (const std::string& name : named) {
        if (std::count(known.begin(), known.end(), name) > 0) continue;
        all.push_back({0, "no scenario: " + name});
    }
    return all;
}

// -------------------------------------------------------------------------------------------------
// Files

std::string read_file(const std::string& name) {
    std::ifstream in{std::string{COORD_TEST_SOURCE_DIR} + "/" + name, std::ios::binary};
    REQUIRE_MESSAGE(in.good(), "cannot read " << name);
    std::ostringstream out;
    out << in.rdbuf();
    return out.str();
}

const Source& header() {
    static const Source source{read_file("coord.hpp")};
    return source;
}

void expect_none(const std::string& file, const Findings& findings) {
    CHECK_MESSAGE(findings.empty(), report(file, findings));
}

void expect_some(const Findings& findings, const std::string& what) {
    bool found = false;
    for (const Finding& f : findings) found = found || contains(f.what, what);
    CHECK_MESSAGE(found, "expected a finding \"" << what << "\", got" << report("bad", findings));
}

// A small header that keeps every rule, as a base for texts that break one.
std::string good_header() {
    const std::string bar = "// " + std::string(97, '=') + "\n";
    const std::string opening = "//\n// Purpose. None.\n// Invariants. None.\n// May touch. -\n\n";
    return "// Index\n//   0  Zero   nothing\n//   1  One    one thing\n//          and another\n"
           "// End of the index\n#ifndef COORD_HPP\n#define COORD_HPP\n"
           "#define COORD_VERSION_MAJOR 1\n#define COORD_VERSION_MINOR 2\n"
           "#define COORD_VERSION_PATCH 3\n\n#include <string>\n\n" +
           bar + "// Part One, chapter 0: Zero\n" + bar + opening + bar +
           "// Part One, chapter 1: One\n" + bar + opening +
           "int f();\n#endif\n#ifdef COORD_IMPLEMENTATION\n" + bar +
           "// Part Two, chapter 1: One\n" + bar + "int f() { return 1; }\n#endif\n";
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    std::size_t at = text.find(from);
    REQUIRE(at != std::string::npos);
    return text.replace(at, from.size(), to);
}

Findings rules_of_header(const Source& source) {
    Findings all;
    for (const Findings& found :
         {rule_layout(source), rule_postponed(source), rule_functions(source, 70),
          rule_words(source), rule_macros(source), rule_includes(source), rule_banners(source),
          rule_chapters(source), rule_openings(source)}) {
        all.insert(all.end(), found.begin(), found.end());
    }
    return all;
}

}  // namespace

// clang-format off: a suite is not a level of indentation
TEST_SUITE("00 tidy") {

TEST_CASE("coord.hpp: 100 columns, ASCII, no tabs, no blanks at the end of a line") {
    expect_none("coord.hpp", rule_layout(header()));
}

TEST_CASE("coord.hpp: nothing is postponed") {
    expect_none("coord.hpp", rule_postponed(header()));
}

TEST_CASE("coord.hpp: no function has more than 70 lines") {
    expect_none("coord.hpp", rule_functions(header(), 70));
    std::vector<Function> functions = FunctionScanner{header()}.run();
    CHECK(functions.size() > 3);  // or the scanner has lost its way
    auto longer = [](const Function& a, const Function& b) {
        return a.last - a.first > b.last - b.first;
    };
    std::sort(functions.begin(), functions.end(), longer);
    for (std::size_t i = 0; i < functions.size() && i < 3; ++i) {
        std::printf("tidy: %zu lines: %s (%zu)\n", functions[i].last + 1 - functions[i].first,
                    functions[i].name.c_str(), functions[i].first);
    }
}

TEST_CASE("coord.hpp: no banned word in the code") {
    expect_none("coord.hpp", rule_words(header()));
}

TEST_CASE("coord.hpp: every macro is COORD_") {
    expect_none("coord.hpp", rule_macros(header()));
}

TEST_CASE("coord.hpp: Part One includes only what the budget allows") {
    expect_none("coord.hpp", rule_includes(header()));
}

TEST_CASE("coord.hpp: the system's headers are included in chapter 6 of Part Two alone") {
    expect_none("coord.hpp", rule_system_includes(header()));
}

TEST_CASE("coord.hpp: the index equals the banners of both parts") {
    expect_none("coord.hpp", rule_banners(header()));
    expect_none("coord.hpp", rule_chapters(header()));
}

TEST_CASE("coord.hpp: chapters open with Purpose, Invariants, May touch") {
    expect_none("coord.hpp", rule_openings(header()));
}

#ifdef COORD_TEST_PROJECT_VERSION
TEST_CASE("coord.hpp: its version is the project's") {
    CHECK(header_version(header()) == COORD_TEST_PROJECT_VERSION);
}
#endif

TEST_CASE("coord.hpp: at least 40 assertions per 1000 lines of chapters 3 to 12") {
    Density sum;
    std::string table;
    for (int chapter = 3; chapter <= 12; ++chapter) {
        Density d = density(header(), chapter);
        sum.asserts += d.asserts;
        sum.code_lines += d.code_lines;
        table += "  " + std::to_string(chapter) + ": " + std::to_string(d.asserts) + "/" +
                 std::to_string(d.code_lines);
    }
    std::printf("tidy: assertions per 1000 lines of code %.0f (%s )\n", sum.per_thousand(),
                table.c_str());
    CHECK_MESSAGE(sum.per_thousand() >= 40.0, "assertions/lines by chapter:" << table);
}

TEST_CASE("the other sources: 100 columns, ASCII, no tabs, nothing postponed") {
    namespace fs = std::filesystem;
    std::size_t count = 0;
    for (const char* folder : {"tests", "examples", "bench"}) {
        const fs::path root = fs::path{COORD_TEST_SOURCE_DIR} / folder;
        if (!fs::exists(root)) continue;
        for (const fs::directory_entry& entry : fs::recursive_directory_iterator{root}) {
            const std::string extension = entry.path().extension().string();
            if (extension != ".cpp" && extension != ".hpp") continue;
            const std::string name =
                entry.path().lexically_relative(root.parent_path()).string();
            const Source source{read_file(name)};
            expect_none(name, rule_layout(source));
            expect_none(name, rule_postponed(source));
            ++count;
        }
    }
    CHECK(count >= 2);
}

TEST_CASE("each scenario has a test that names it, or stands in scenarios.txt") {
    namespace fs = std::filesystem;
    const fs::path root = COORD_TEST_SOURCE_DIR;
    Strings named;
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator{root / "tests"}) {
        if (entry.path().extension() != ".cpp" || entry.path().filename() == "tidy.cpp") continue;
        const std::string text = read_file(entry.path().lexically_relative(root).string());
        const Strings more = scenarios_of(names_of_tests(text));
        named.insert(named.end(), more.begin(), more.end());
    }
    CHECK(named.size() > 150);
    const auto read = [&](const std::string& name) {
        return fs::is_regular_file(root / name) ? read_file(name) : "";
    };
    const std::string list = read_file("tests/paper/scenarios.txt");
    expect_none("tests/paper/scenarios.txt", rule_scenarios(list, named, read));
}

// -------------------------------------------------------------------------------------------------
// The rules can fail.

TEST_CASE("self-test: a good header has no findings") {
    expect_none("good", rules_of_header(Source{good_header()}));
    CHECK(header_version(Source{good_header()}) == "1.2.3");
}

TEST_CASE("self-test: layout") {
    expect_some(rule_layout(Source{std::string(101, 'x') + "\n"}), "101 columns");
    expect_none("good", rule_layout(Source{std::string(100, 'x') + "\n"}));
    expect_some(rule_layout(Source{"a\tb\n"}), "a tab");
    expect_some(rule_layout(Source{"a \n"}), "a blank at the end");
    expect_some(rule_layout(Source{"a\r\n"}), "a blank at the end");
    expect_some(rule_layout(Source{"// \xc3\xa9\n"}), "not ASCII");
    expect_some(rule_layout(Source{"a"}), "no newline");
    expect_some(rule_postponed(Source{"// TO"
                                      "DO: later\n"}),
                "TO"
                "DO");
    expect_some(rule_postponed(Source{"f(); // FIX"
                                      "ME\n"}),
                "FIX"
                "ME");
}

TEST_CASE("self-test: banned words are seen in code only") {
    for (const char* bad :
         {"throw 1;", "try {", "} catch (...) {", "dynamic_cast<A*>(b)", "typeid(a)",
          "std::cout << 1;", "#include <iostream>", "using namespace std;",
          "thread_local int i;", "std::min(1, 2)", "std::max (1, 2)", "limits<int>::max()"}) {
        CAPTURE(bad);
        CHECK_FALSE(rule_words(Source{std::string{bad} + "\n"}).empty());
    }
    for (const char* good :
         {"// throw", "/* try */", "f(\"catch\");", "retry();", "throws();", "(std::min)(1, 2)",
          "(limits<int>::max)()", "max_size();", "int i = 1'000; // try",
          "R\"x(throw \" )\" throw)x\";", "f('\"'); // throw", "std::anything x;"}) {
        CAPTURE(good);
        CHECK(rule_words(Source{std::string{good} + "\n"}).empty());
    }
    // A digit separator and an escaped quote do not hide what follows.
    CHECK_FALSE(rule_words(Source{"int i = 1'000; throw 2;\n"}).empty());
    CHECK_FALSE(rule_words(Source{"f(\"\\\"\"); throw 2;\n"}).empty());
    CHECK_FALSE(rule_words(Source{"f('\\''); throw 2;\n"}).empty());
    CHECK_FALSE(rule_words(Source{"f(R\"(\\)\"); throw 2;\n"}).empty());
}

TEST_CASE("self-test: functions are found and measured") {
    const Source source{"namespace a {\n"
                        "enum class E : char { x, y };\n"
                        "struct S {\n"
                        "    S(int i) : i_{i}, j_((T{i} + 1)), k_{} {\n"
                        "        if (i) { j_ = 1; }\n"
                        "    }\n"
                        "    bool operator<(const S& o) const { return i_ < o.i_; }\n"
                        "    int i_{3}, j_ = (T{1} << 4);\n"
                        "    const std::vector<int> k_{1, 2};\n"
                        "};\n"
                        "constexpr int table[] = {1, 2};\n"
                        "template <class T, class U>\n"
                        "auto f(\n"
                        "    T t, U u) -> int {\n"
                        "    return [&] { return \"}\" + t; }() + '{';\n"
                        "}\n"
                        "#define COORD_X {{{\n"
                        "class C final : public B<int> {\n"
                        "    void g() noexcept override {}\n"
                        "};\n"
                        "}\n"};
    FunctionScanner scanner{source};
    const std::vector<Function> functions = scanner.run();
    CHECK(scanner.balanced());
    std::string spelled;
    for (const Function& f : functions) {
        spelled += f.name + ":" + std::to_string(f.first) + "-" + std::to_string(f.last) + " ";
    }
    CHECK(spelled == "S:4-6 operator<:7-7 f:13-16 g:19-19 ");
    expect_some(rule_functions(source, 3), "f has 4 lines");
    expect_none("good", rule_functions(source, 4));
    expect_some(rule_functions(Source{"void f() {\n"}, 70), "does not end");
    expect_some(rule_functions(Source{"}\n"}, 70), "balance");
    std::string body = "void long_one() {\n";
    for (int i = 0; i < 69; ++i) body += "    f();\n";
    expect_some(rule_functions(Source{body + "}\n"}, 70), "long_one has 71 lines");
}

TEST_CASE("self-test: macros, includes, version") {
    expect_some(rule_macros(Source{"#define MIN(a, b) a\n"}), "MIN");
    expect_some(rule_macros(Source{"  # define coord_x\n"}), "coord_x");
    expect_none("good", rule_macros(Source{"// #define X\n#define COORD_X\n"}));
    const std::string good = good_header();
    for (const char* bad :
         {"#include <thread>", "# include <iostream>", "#include \"my.hpp\""}) {
        CAPTURE(bad);
        const Source source{replaced(good, "#include <string>", bad)};
        expect_some(rule_includes(source), "Part One includes");
    }
    const std::string ask = "#ifdef COORD_IMPLEMENTATION\n";
    const std::string more = replaced(good, ask, ask + "#include <chrono>\n");
    expect_none("good", rule_includes(Source{more}));
    expect_some(rule_system_includes(Source{"// Part Two, chapter 5: A\n#include <fcntl.h>\n"}),
                "header of the system");
    expect_none("good",
                rule_system_includes(Source{"// Part Two, chapter 6: A\n# include <fcntl.h>\n"}));
    CHECK(header_version(Source{replaced(good, "_PATCH 3", "_PATCH 4")}) == "1.2.4");
    CHECK(header_version(Source{replaced(good, "VERSION_PATCH", "PATCH")}) == "1.2.?");
}

TEST_CASE("self-test: scenarios") {
    CHECK(scenarios_of("x, faults D1 D2, ZooKeeper A24: as ZooKeeper's C1") ==
          Strings{"ZooKeeper A24", "faults D1", "faults D2"});
    CHECK(scenarios_of("faults D15 (S8): T1, ZooKeeper\nB1 faults") ==
          Strings{"ZooKeeper B1", "faults D15"});
    CHECK(names_of_tests("TEST_CASE(\"a b\") { (\"c\") }\nTEST_CASE(\"d\")") == "a b\nd\n");
    Strings named;
    for (const Letter& each : catalogue) {
        for (int number = 1; number <= each.count; ++number) {
            const std::string name = each.letter + std::to_string(number);
            if (name != "N3") named.push_back(std::string(each.catalogue) + " " + name);
        }
    }
    const auto read = [](const std::string& name) { return name == "f" ? "one two" : ""; };
    const auto rule = [&](const char* list) { return rule_scenarios(list, named, read); };
    CHECK(rule("# of it\n\nfaults N3 | f | one").empty());
    CHECK(rule("faults N3 | - | there is none").empty());
    expect_some(rule(""), "faults N3 has neither");
    expect_some(rule("faults N3 | g | one"), "does not stand in g");
    expect_some(rule("faults N3 | f | three"), "does not stand in f: three");
    expect_some(rule("faults N3 | -"), "not: names");
    expect_some(rule("faults N3 | f | one\nfaults N18 | f | one"), "no scenario: faults N18");
}

TEST_CASE("self-test: index, banners, openings, density") {
    const std::string good = good_header();
    auto changed = [&](const char* from, const char* to) {
        return Source{replaced(good, from, to)};
    };
    expect_some(rule_chapters(changed("// Index", "// Contents")), "no index");
    expect_some(rule_chapters(changed("//   1  One    one", "//   1  Uno    one")), "Uno");
    expect_some(rule_chapters(changed("//   1  One    one", "//   2  One    one")),
                "next number");
    expect_some(rule_chapters(changed("One, chapter 1: One", "One, chapter 1: 1")), "1 One");
    expect_some(rule_chapters(changed("Part Two, chapter 1", "Part Two, chapter 2")), "2 One");
    expect_some(rule_chapters(changed("// Part Two, chapter 1: One", "// None")),
                "\"nothing\"");
    expect_some(rule_banners(changed("=\n// Part Two", "\n// Part Two")), "no bar");
    expect_some(rule_banners(changed("Part Two, chapter 1", "Part One, chapter 1")),
                "other part");
    expect_some(rule_openings(changed("Purpose", "Aim")), "0 Zero opens without Purpose");
    expect_some(rule_openings(changed("May touch", "Touches")), "May touch");
    const Source asserted{
        replaced(good, "return 1;", "\nCOORD_ASSERT(x);\n// COORD_ASSERT(y);\n")};
    CHECK(density(asserted, 1).asserts == 1);
    CHECK(density(asserted, 1).code_lines == 4);
    CHECK(density(Source{good}, 1).per_thousand() == 0);
    CHECK(density(Source{good}, 2).per_thousand() == 0);
}

}  // TEST_SUITE
