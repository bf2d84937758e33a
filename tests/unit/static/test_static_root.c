/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking up below a root: nothing outside is ever reached, and changes are seen when they must be.
 */
#include "support.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>

TestSuite(static_root, .init = site_open, .fini = site_leave);

/* ---- opening -------------------------------------------------------------------------------- */

static void
expect_refused(const char *path, const char *index, int error, const char *text)
{
    struct static_root *refused = NULL;
    struct buf why = {0};

    cr_expect_eq(static_root_open(path, index, &refused, &why), error, "%s", path);
    cr_expect_null(refused);
    cr_assert_gt(why.len, 0);
    cr_expect_not_null(strstr(why.ptr, text), "%s", why.ptr);
    cr_expect_not_null(strstr(why.ptr, index[0] == '/' ? index : path), "%s", why.ptr);
    buf_release(&why);
}

Test(static_root, bad_root_is_refused_with_its_reason)
{
    size_t before = descriptor_count();

    write_text("file", "x");
    expect_refused("/nonexistent/folder", "", -ENOENT, "make the folder");
    expect_refused("file", "", -ENOTDIR, "serve the folder it is in");
    expect_refused(folder, "/etc/passwd", -EINVAL, "not a path");
    cr_expect_eq(descriptor_count(), before);
}

Test(static_root, index_is_a_name)
{
    struct static_root *refused = NULL;
    struct buf why = {0};

    cr_expect_eq(static_root_open(folder, "..", &refused, &why), -EINVAL);
    cr_expect_eq(static_root_open(folder, ".", &refused, &why), -EINVAL);
    cr_expect_eq(static_root_open(folder, "../x", &refused, &why), -EINVAL);
    buf_release(&why);
}

Test(static_root, close_takes_null_and_frees_all)
{
    size_t before = descriptor_count();
    struct static_root *second = NULL;
    struct buf why = {0};

    write_filled("large", 'x', 100000);
    cr_assert_eq(static_root_open(".", "", &second, &why), 0);
    struct static_root *first = root;
    root = second;
    cr_expect_eq(ask_status("/large"), 200);
    root = first;
    cr_expect_eq(descriptor_count(), before + 2);
    static_root_close(&second);
    cr_expect_null(second);
    static_root_close(&second);
    cr_expect_eq(descriptor_count(), before);
}

/* ---- containment ---------------------------------------------------------------------------- */

Test(static_root, no_spelling_leads_out)
{
    static const char *const targets[] = {
        "/../secret",
        "/..",
        "/../",
        "/sub/../../secret",
        "/sub/../../site/../secret",
        "/%2e%2e/secret",
        "/%2E%2E/secret",
        "/.%2e/secret",
        "/%2e./secret",
        "/..%2fsecret",
        "/..%2Fsecret",
        "/%2e%2e%2fsecret",
        "/sub/..%2f..%2fsecret",
        "/%252e%252e/secret",
        "/%252e%252e%252fsecret",
        "/..%252fsecret",
        "/..%5csecret",
        "/..\\secret",
        "/..;/secret",
        "/.../secret",
        "/....//secret",
        "//../secret",
        "/./../secret",
        "/sub/%2e%2e/%2e%2e/secret",
        "/%c0%ae%c0%ae/secret",
        "/%e0%80%ae%e0%80%ae/secret",
        "/..%00/secret",
        "/..%c0%afsecret",
        "/sub%2f..%2f..%2fsecret",
        "/up/secret",
        "/up/site/inside",
        "/link",
        "/absolute",
        "/absolute-inside",
        "/absolute-beside",
        "/absolute-folder/passwd",
        "/deep/link",
        "/magic-root/etc/passwd",
        "/magic-cwd/inside",
        "/magic-fd",
        "/loop",
        "//etc/passwd",
        "/etc/passwd",
        "http://example.org/../secret",
        "http://example.org/%2e%2e/secret",
    };

    write_text("../secret", "SECRET");
    write_text("inside", "inside");
    cr_assert_eq(mkdir("sub", 0755), 0);
    cr_assert_eq(mkdir("deep", 0755), 0);
    cr_assert_eq(symlink("..", "up"), 0);
    cr_assert_eq(symlink("../secret", "link"), 0);
    cr_assert_eq(symlink("../../secret", "deep/link"), 0);
    cr_assert_eq(symlink("/etc/passwd", "absolute"), 0);
    cr_assert_eq(symlink("/etc", "absolute-folder"), 0);
    char *absolute = xasprintf("%s/site/inside", folder);
    cr_assert_eq(symlink(absolute, "absolute-inside"), 0);
    free(absolute);
    cr_assert_eq(symlink("/inside", "absolute-beside"), 0); /* as a chroot would read it */
    cr_assert_eq(symlink("/proc/self/root", "magic-root"), 0);
    cr_assert_eq(symlink("/proc/self/cwd", "magic-cwd"), 0);
    cr_assert_eq(symlink("/proc/self/fd/0", "magic-fd"), 0);
    cr_assert_eq(symlink("loop", "loop"), 0);
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        for (int round = 0; round < 2; round++) { /* the second might come from the cache */
            struct static_answer answer = ask(targets[i]);
            cr_expect(answer.status == 404 || answer.status == 400, "%s: %d", targets[i],
                      answer.status);
            cr_expect_null(answer.file, "%s", targets[i]);
            static_answer_release(&answer);
        }
    }
    expect_body("/inside", "inside");
    expect_body("/sub/../inside", "inside");
    expect_body("/sub/%2e%2e/inside", "inside");
    expect_body("/%69nside", "inside");
}

Test(static_root, magic_links_inside_of_the_root_are_refused)
{
    struct buf why = {0};
    struct static_root *proc = NULL;
    struct static_root *first = root;

    /* A root that holds real magic links: /proc/self/exe leads out, /proc/self/cwd too. */
    cr_assert_eq(static_root_open("/proc/self", "", &proc, &why), 0);
    root = proc;
    cr_expect_eq(ask_status("/exe"), 404);
    cr_expect_eq(ask_status("/cwd/inside"), 404);
    cr_expect_eq(ask_status("/root/etc/passwd"), 404);
    cr_expect_eq(ask_status("/fd/0"), 404);
    cr_expect_eq(ask_status("/comm"), 200, "a plain file of the same root");
    root = first;
    static_root_close(&proc);
}

Test(static_root, relative_links_inside_work)
{
    write_text("target", "content");
    cr_assert_eq(mkdir("a", 0755), 0);
    cr_assert_eq(mkdir("a/b", 0755), 0);
    cr_assert_eq(symlink("target", "same"), 0);
    cr_assert_eq(symlink("../../target", "a/b/up"), 0);
    cr_assert_eq(symlink("a/b", "folder"), 0);
    write_text("a/b/index.html", "index");
    expect_body("/same", "content");
    expect_body("/a/b/up", "content");
    expect_body("/folder/up", "content");
    expect_body("/folder/", "index");
    cr_expect_eq(ask_status("/folder"), 301);
}

Test(static_root, hidden_files_are_not_there)
{
    static const char *const targets[] = {
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/sub/.htpasswd",
        "/sub/%2Ehtpasswd",
        "/.git",
        "/.git/",
        "/sub/.well-known/x",
        "/.well-knownx",
        "/.well-known/.x",
        "/.well-knownx/y",
        "/.hidden.html",
        "/sub/..data",
        "/...",
    };

    cr_assert_eq(mkdir("sub", 0755), 0);
    cr_assert_eq(mkdir(".git", 0755), 0);
    cr_assert_eq(mkdir("sub/.well-known", 0755), 0);
    cr_assert_eq(mkdir(".well-known", 0755), 0);
    cr_assert_eq(mkdir(".well-knownx", 0755), 0);
    write_text(".env", "KEY");
    write_text(".git/config", "x");
    write_text(".git/index.html", "x");
    write_text("sub/.htpasswd", "x");
    write_text("sub/.well-known/x", "x");
    write_text(".well-known/.x", "x");
    write_text(".well-knownx/y", "x");
    write_text(".hidden.html", "x");
    write_text("sub/..data", "x");
    write_text("...", "x");
    for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
        struct static_answer answer = ask(targets[i]);
        cr_expect_eq(answer.status, 404, "%s: %d", targets[i], answer.status);
        cr_expect_str_eq(answer.reason, "hidden files are not served", "%s", targets[i]);
        static_answer_release(&answer);
    }
    write_text(".well-known/security.txt", "Contact:");
    expect_body("/.well-known/security.txt", "Contact:");
    expect_body("/%2ewell-known/security.txt", "Contact:");
    cr_expect_eq(ask_status("/.well-known"), 301);
    write_text("a.b..c", "dots inside");
    expect_body("/a.b..c", "dots inside");
}

Test(static_root, encoded_slash_names_nothing)
{
    cr_assert_eq(mkdir("a", 0755), 0);
    write_text("a/b", "x");
    write_text("a%2Fb", "x");
    write_text("a%2fb", "x");
    write_text("a%252Fb", "x");
    cr_expect_eq(ask_status("/a%2Fb"), 404);
    cr_expect_eq(ask_status("/a%2fb"), 404);
    cr_expect_eq(ask_status("/a%252Fb"), 404);
    cr_expect_eq(ask_status("/a%252fb"), 404);
    cr_expect_eq(ask_status("/a%25252fb"), 404);
    /* Other percent signs are just names. */
    write_text("100%", "full");
    write_text("a%25b", "escaped");
    write_text("%2", "short");
    expect_body("/100%25", "full");
    expect_body("/a%2525b", "escaped");
    expect_body("/%252", "short");
}

Test(static_root, names_of_any_bytes_work)
{
    write_text("a b?c#d", "1");
    write_text("\xc3\xbc.txt", "2");
    write_text("\xff", "3");
    expect_body("/a%20b%3Fc%23d", "1");
    expect_body("/%C3%BC.txt", "2");
    expect_body("/%FF", "3");
}

Test(static_root, what_is_no_regular_file_is_not_there)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert_eq(mkfifo("fifo", 0644), 0); /* a blocking open would hang the test */
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "socket");
    cr_assert_eq(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
    size_t before = descriptor_count();
    cr_expect_eq(ask_status("/fifo"), 404);
    cr_expect_eq(ask_status("/socket"), 404);
    cr_assert_eq(mkdir("folder", 0755), 0);
    cr_assert_eq(mkdir("folder/index.html", 0755), 0);
    cr_expect_eq(ask_status("/folder/"), 404);
    if (mknod("null", S_IFCHR | 0644, 1 << 8 | 3) == 0) {
        int status = ask_status("/null"); /* EACCES where devices do not open (nodev) */
        cr_expect(status == 404 || status == 403, "%d", status);
    }
    cr_expect_eq(descriptor_count(), before);
    fd_close(&listener);
}

Test(static_root, missing_and_misspelt)
{
    char *name = xcalloc(1, 8002);

    write_text("file", "x");
    cr_expect_eq(ask_status("/missing"), 404);
    cr_expect_eq(ask_status("/file/"), 404, "a file is no folder");
    cr_expect_eq(ask_status("/file/x"), 404);
    cr_expect_eq(ask_status("/FILE"), 404);
    memset(name, 'a', 8001);
    name[0] = '/';
    cr_expect_eq(ask_status(name), 404, "longer than PATH_MAX");
    name[4090] = '\0'; /* with the index it would be longer */
    name[4089] = '/';
    cr_expect_eq(ask_status(name), 404);
    name[300] = '\0';
    cr_expect_eq(ask_status(name), 404, "longer than NAME_MAX");
    free(name);
}

Test(static_root, folder_without_index)
{
    cr_assert_eq(mkdir("folder", 0755), 0);
    cr_expect_eq(ask_status("/"), 404);
    cr_expect_eq(ask_status("/folder"), 301);
    cr_expect_eq(ask_status("/folder/"), 404);
    static_root_close(&root);
    root_open_index("");
    write_text("folder/index.html", "x");
    cr_expect_eq(ask_status("/folder/"), 404, "the route has no index");
    cr_expect_eq(ask_status("/folder"), 301);
    cr_expect_eq(ask_status("/folder/index.html"), 200);
}

Test(static_root, index_answers_for_a_folder)
{
    cr_assert_eq(mkdir("folder", 0755), 0);
    write_text("index.html", "top");
    write_text("folder/index.html", "below");
    expect_body("/", "top");
    expect_body("/folder/", "below");
    struct static_answer answer = ask("/");
    cr_expect_str_eq(answer.file->content_type, "text/html; charset=utf-8");
    static_answer_release(&answer);
}

static void
become_nobody(void)
{
    if (geteuid() == 0) {
        cr_assert_eq(seteuid(NOBODY), 0); /* back to root for the clean-up */
    }
}

static void
become_self(void)
{
    cr_assert_eq(seteuid(getuid()), 0);
}

Test(static_root, unreadable_is_forbidden_with_a_reason)
{
    write_text("private", "x");
    cr_assert_eq(chmod("private", 0), 0);
    cr_assert_eq(mkdir("closed", 0755), 0);
    write_text("closed/file", "x");
    cr_assert_eq(chmod("closed", 0), 0);
    cr_assert_eq(mkdir("unlistable", 0755), 0);
    write_text("unlistable/index.html", "index");
    cr_assert_eq(chmod("unlistable", 0111), 0);
    become_nobody();
    struct static_answer answer = ask("/private");
    cr_expect_eq(answer.status, 403);
    cr_expect_eq(answer.error, EACCES);
    cr_expect_not_null(strstr(answer.reason, "may not read"));
    static_answer_release(&answer);
    cr_expect_eq(ask_status("/closed/file"), 403);
    cr_expect_eq(ask_status("/closed/"), 403);
    cr_expect_eq(ask_status("/unlistable"), 301);
    expect_body("/unlistable/", "index");
    become_self();
}

Test(static_root, permission_that_is_taken_away_counts)
{
    write_text("file", "x");
    expect_body("/file", "x");
    cr_assert_eq(chmod("file", 0), 0);
    become_nobody();
    expect_body("/file", "x"); /* fresh */
    now_ms += cache_ms;
    cr_expect_eq(ask_status("/file"), 403);
    now_ms -= cache_ms;
    cr_expect_eq(ask_status("/file"), 403, "and it was forgotten");
    become_self();
}

/* ---- freshness ------------------------------------------------------------------------------ */

/* Replaces path by rename, as deployments do. */
static void
replace(const char *path, const char *text)
{
    write_text("replacement", text);
    cr_assert_eq(rename("replacement", path), 0);
}

Test(static_root, change_is_seen_after_cache_ms_and_not_before)
{
    replace("file", "one");
    expect_body("/file", "one");
    replace("file", "two");
    now_ms += cache_ms - 1;
    expect_body("/file", "one");
    now_ms += 1;
    expect_body("/file", "two");
    /* The check that found it begins a new span. */
    replace("file", "three");
    now_ms += cache_ms - 1;
    expect_body("/file", "two");
    now_ms += 1;
    expect_body("/file", "three");
}

Test(static_root, without_cache_every_change_is_seen)
{
    cache_ms = 0;
    for (int i = 0; i < 100; i++) {
        char text[8];
        (void)snprintf(text, sizeof(text), "%d", i);
        if (i % 2 == 0) {
            replace("file", text);
        } else {
            write_text("file", text); /* in place, within the same tick, often of the same size */
        }
        expect_body("/file", text);
    }
    cr_assert_eq(unlink("file"), 0);
    cr_expect_eq(ask_status("/file"), 404);
}

Test(static_root, write_within_the_clock_tick_is_not_lost)
{
    /* Same inode, same size, and mtime put back: only reading again finds it. */
    write_text("file", "one");
    set_mtime("file", 1000000000, 0);
    expect_body("/file", "one");
    write_text("file", "two");
    set_mtime("file", 1000000000, 0);
    now_ms += cache_ms;
    expect_body("/file", "two");
}

Test(static_root, missing_file_is_found_as_soon_as_it_is_there)
{
    cr_expect_eq(ask_status("/file"), 404);
    write_text("file", "x");
    expect_body("/file", "x");
}

Test(static_root, removed_file_is_gone_after_cache_ms)
{
    write_text("file", "x");
    expect_body("/file", "x");
    cr_assert_eq(unlink("file"), 0);
    expect_body("/file", "x");
    now_ms += cache_ms;
    cr_expect_eq(ask_status("/file"), 404);
}

Test(static_root, fresh_and_settled_are_the_same_object)
{
    struct buf why = {0};
    struct static_root *first = root;
    struct static_root *system = NULL;

    cr_assert_eq(static_root_open("/usr/include", "", &system, &why), 0);
    root = system;
    struct static_answer one = ask("/stdio.h");
    struct static_answer two = ask("/stdio.h");
    now_ms += 10 * cache_ms;
    struct static_answer three = ask("/stdio.h");
    cr_expect_eq(one.status, 200);
    cr_expect_eq(one.file, two.file);
    cr_expect_eq(one.file, three.file, "asked again, and it had not changed");
    static_answer_release(&one);
    static_answer_release(&two);
    static_answer_release(&three);
    root = first;
    static_root_close(&system);
}

Test(static_root, held_file_keeps_serving_what_it_was)
{
    static const size_t sizes[] = {1000, 100000};

    for (size_t i = 0; i < 2; i++) {
        write_filled("file", 'a', sizes[i]);
        struct static_answer held = ask("/file");
        write_filled("other", 'b', sizes[i] + 1);
        cr_assert_eq(rename("other", "file"), 0);
        now_ms += cache_ms;
        struct static_answer fresh = ask("/file");
        cr_expect_neq(held.file, fresh.file);
        char *old_body = answer_body(&held);
        char *new_body = answer_body(&fresh);
        cr_expect_eq(strlen(old_body), sizes[i]);
        cr_expect_eq(strspn(old_body, "a"), sizes[i], "not one byte of the new file");
        cr_expect_eq(strspn(new_body, "b"), sizes[i] + 1);
        cr_expect_neq(str_equal(held.file->etag, fresh.file->etag), true);
        static_root_close(&root); /* not even the end of the root takes it away */
        char *again = answer_body(&held);
        cr_expect_str_eq(again, old_body);
        free(again);
        free(old_body);
        free(new_body);
        static_answer_release(&held);
        static_answer_release(&fresh);
        root_open_index("index.html");
    }
}

Test(static_root, small_file_truncated_in_place_is_still_whole)
{
    write_filled("file", 'a', 20000);
    struct static_answer held = ask("/file");
    cr_assert_eq(truncate("file", 3), 0);
    char *body = answer_body(&held);
    cr_expect_eq(strspn(body, "a"), 20000);
    free(body);
    static_answer_release(&held);
}

Test(static_root, large_file_is_described_as_it_is_at_this_moment)
{
    write_filled("file", 'a', 100000);
    struct static_answer before = ask("/file");
    write_filled("file", 'b', 50000); /* in place: the cached descriptor sees it too */
    struct static_answer after = ask("/file");
    cr_expect_eq(after.length, 50000, "although the entry is fresh");
    cr_expect_not(str_equal(before.file->etag, after.file->etag));
    char *body = answer_body(&after);
    cr_expect_eq(strspn(body, "b"), 50000);
    free(body);
    static_answer_release(&before);
    static_answer_release(&after);
}

Test(static_root, replaced_root_folder_is_followed)
{
    char *site = xasprintf("%s/site", folder);

    /* A "current" link, switched to a new release. */
    cr_assert_eq(chdir(folder), 0);
    cr_assert_eq(mkdir("release-1", 0755), 0);
    cr_assert_eq(mkdir("release-2", 0755), 0);
    write_text("release-1/file", "one");
    write_text("release-2/file", "two");
    cr_assert_eq(rmdir("site"), 0);
    cr_assert_eq(symlink("release-1", "site"), 0);
    now_ms += cache_ms;
    expect_body("/file", "one");
    cr_assert_eq(symlink("release-2", "next"), 0);
    cr_assert_eq(rename("next", "site"), 0);
    expect_body("/file", "one"); /* fresh */
    now_ms += cache_ms;
    expect_body("/file", "two");

    /* Nothing there for a moment: the folder last found serves on. */
    cr_assert_eq(unlink("site"), 0);
    now_ms += cache_ms;
    expect_body("/file", "two");

    /* A build that removes the folder and makes it again. */
    cr_assert_eq(mkdir("site", 0755), 0);
    write_text("site/file", "three");
    now_ms += cache_ms;
    expect_body("/file", "three");
    free(site);
}

/* ---- bounds --------------------------------------------------------------------------------- */

Test(static_root, descriptors_are_stable_over_many_lookups)
{
    static const char *const targets[] = {"/small",   "/large", "/missing", "/folder", "/folder/",
                                          "/private", "/fifo",  "/link",    "/.x",     "/"};
    size_t count = sizeof(targets) / sizeof(targets[0]);

    write_text("small", "x");
    write_text("index.html", "x");
    write_filled("large", 'x', 100000);
    cr_assert_eq(mkdir("folder", 0755), 0);
    cr_assert_eq(mkfifo("fifo", 0644), 0);
    cr_assert_eq(symlink("/etc/passwd", "link"), 0);
    for (size_t i = 0; i < count; i++) {
        (void)ask_status(targets[i]);
    }
    size_t before = descriptor_count();
    for (size_t i = 0; i < 10000; i++) {
        now_ms += (int64_t)(i % 7) * 100; /* fresh ones and stale ones */
        (void)ask_status(targets[i % count]);
        if (i % 97 == 0) {
            replace("small", "y");
        }
    }
    cr_expect_eq(descriptor_count(), before);
}

Test(static_root, cache_gives_descriptors_back_when_they_run_out)
{
    struct rlimit limit;
    int taken[64];
    size_t count = 0;

    write_filled("large", 'x', 100000);
    write_text("small", "small");
    cr_expect_eq(ask_status("/large"), 200); /* the cache holds one */
    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    rlim_t old = limit.rlim_cur;
    limit.rlim_cur = 60;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
    while (count < 64 && (taken[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) != -1) {
        count++;
    }
    cr_assert_eq(errno, EMFILE);
    expect_body("/small", "small"); /* with the descriptor that the cache gave back */
    expect_body("/small", "small");

    int last = open("/dev/null", O_RDONLY | O_CLOEXEC);
    cr_assert_neq(last, -1);
    struct static_answer answer = ask("/large");
    cr_expect_eq(answer.status, 503);
    cr_expect_eq(answer.error, EMFILE);
    cr_expect_not_null(strstr(answer.reason, "LimitNOFILE"));
    static_answer_release(&answer);
    fd_close(&last);
    cr_expect_eq(ask_status("/large"), 200, "and it recovers");

    while (count > 0) {
        fd_close(&taken[--count]);
    }
    limit.rlim_cur = old;
    cr_assert_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

Test(static_root, more_files_than_the_cache_holds_are_all_served)
{
    char name[32];

    for (unsigned i = 0; i < STATIC_CACHE_FILES_MAX + 100; i++) {
        (void)snprintf(name, sizeof(name), "f%u", i);
        write_text(name, name);
    }
    for (int round = 0; round < 2; round++) {
        for (unsigned i = 0; i < STATIC_CACHE_FILES_MAX + 100; i++) {
            (void)snprintf(name, sizeof(name), "/f%u", i);
            expect_body(name, name + 1);
        }
    }
}
