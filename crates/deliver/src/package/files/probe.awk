# Prints the statements of kernel headers in which certain words stand, without comments, white space made one:
#     HEADER WORD<tab>STATEMENT
# The first file is the list: `HEADER WORD WORD …` a line. Then come pairs: h=HEADER FILE.

function emit(s,    n, i, part, seen) {
    gsub(/[ \t]+/, " ", s); sub(/^ /, "", s); sub(/ $/, "", s)
    if (s == "") return
    n = split(s, part, /[^A-Za-z0-9_]+/)
    for (i = 1; i <= n; i++)
        if (part[i] != "" && ((h, part[i]) in wanted) && !(part[i] in seen)) {
            seen[part[i]] = 1
            print h " " part[i] "\t" s
        }
}

FNR == 1 { if (NR > 1) { emit(statement); emit(directive) } statement = ""; directive = ""; inside = 0; more = 0 }

NR == FNR { for (i = 2; i <= NF; i++) wanted[$1, $i] = 1; next }

{
    line = $0; text = ""
    while (line != "") {
        if (inside) {
            at = index(line, "*/")
            if (!at) break
            inside = 0; text = text " "; line = substr(line, at + 2)
            continue
        }
        at = index(line, "/*"); slashes = index(line, "//")
        if (slashes && (!at || slashes < at)) { text = text substr(line, 1, slashes - 1); break }
        if (!at) { text = text line; break }
        text = text substr(line, 1, at - 1); inside = 1; line = substr(line, at + 2)
    }
    if (more || text ~ /^[ \t]*#/) {
        more = (text ~ /\\[ \t]*$/); sub(/\\[ \t]*$/, "", text)
        directive = directive " " text
        if (!more) { emit(directive); directive = "" }
        next
    }
    n = split(text, parts, /[;{}]/)
    for (i = 1; i <= n; i++) {
        statement = statement " " parts[i]
        if (i < n) { emit(statement); statement = "" }
    }
    # A macro that stands for a declaration needs no semicolon.
    if (statement ~ /\)[ \t]*$/) {
        open_ = statement; shut = statement
        if (gsub(/\(/, "", open_) == gsub(/\)/, "", shut)) { emit(statement); statement = "" }
    }
}

END { emit(statement); emit(directive) }
