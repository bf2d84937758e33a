/* SPDX-License-Identifier: Apache-2.0
 *
 * Every file of tests/fixtures/settings/invalid is refused with exactly the errors it names; the
 * README.md there says how it names them. Beside them what is near an error and yet right.
 */
#include "tests/unit/config/support.h"

#include <dirent.h>

TestSuite(config_check, .init = enter_folder, .fini = leave_folder);

#define INVALID_FOLDER NARWHAL_SOURCE_DIR "/tests/fixtures/settings/invalid"

static void
add_expanded(struct buf *out, const char *text, size_t length, const char *path)
{
    while (length > 0) {
        if (length >= 6 && memcmp(text, "{file}", 6) == 0) {
            buf_add_text(out, path);
            text += 6;
            length -= 6;
        } else if (length >= 8 && memcmp(text, "{folder}", 8) == 0) {
            buf_add_text(out, INVALID_FOLDER);
            text += 8;
            length -= 8;
        } else {
            buf_add(out, text++, 1);
            length--;
        }
    }
}

/* The errors that the file expects, one in a line. */
static char *
read_expected(const char *path)
{
    struct buf expected = {0};
    char line[256];
    FILE *in = fopen(path, "re");

    cr_assert_not_null(in, "%s", path);
    buf_add(&expected, "", 0);
    while (fgets(line, sizeof(line), in) != NULL) {
        size_t length = strcspn(line, "\n");
        if (strncmp(line, "# expect: ", 10) == 0) {
            buf_add_text(&expected, expected.len == 0 ? "" : "\n");
            add_expanded(&expected, line + 10, length - 10, path);
        } else if (strncmp(line, "#+ ", 3) == 0 && expected.len > 0) {
            buf_add_text(&expected, " ");
            add_expanded(&expected, line + 3, length - 3, path);
        } else {
            break;
        }
    }
    cr_assert_eq(fclose(in), 0);
    cr_assert_gt(expected.len, 0, "%s expects no error", path);
    buf_add_text(&expected, "\n");
    return buf_take(&expected);
}

Test(config_check, invalid_files_give_the_errors_they_name)
{
    DIR *directory = opendir(INVALID_FOLDER);
    size_t count = 0;

    cr_assert_not_null(directory);
    for (struct dirent *entry = readdir(directory); entry != NULL; entry = readdir(directory)) {
        if (entry->d_name[0] == '.') {
            continue;
        }
        char *path = xasprintf("%s/%s", INVALID_FOLDER, entry->d_name);
        char *expected = read_expected(path);
        expect_errors(FLAGS("-c", path), NULL, expected);
        free(expected);
        free(path);
        count++;
    }
    cr_assert_eq(closedir(directory), 0);
    cr_expect_geq(count, 60, "only %zu files", count);
}

Test(config_check, what_is_near_an_error_and_right)
{
    static const char *const texts[] = {
        "[route:a]\nrespond = 200\n[route:b]\npath = =/\nrespond = 200\n",
        "[route:a]\npath = /a\nrespond = 200\n[route:b]\npath = /a/\nrespond = 200\n",
        "[route:a]\nrespond = 200\n[route:b]\nhost = a.example\nrespond = 200\n",
        "[route:a]\nhost = a.example\nrespond = 200\n[route:b]\nhost = *.a.example\nrespond = "
        "200\n",
        "[route:a]\nhost = a.example\nhost = b.example\nhost = [::1]\nhost = 127.0.0.1\n"
        "respond = 200\n",
        "[route:0123456789abcdefghijklmnopqrst_-]\nrespond = 200\n",
        "[route:a]\nbackend = b\nstrip_prefix = on\n[backend:b]\nserver = 127.0.0.1:1\n",
        "[backend:unused]\nserver = 127.0.0.1:1\n[route:a]\nrespond = 200\n",
        "[route:a]\nstatic = .\nredirect =\nrespond =\nbackend =\n",
        "[backend:b]\ncommand = app\nserver =\nlisten = fd\n[route:a]\nbackend = b\n",
        "[backend:b]\ncommand = app\nlisten = port\n[route:a]\nbackend = b\n",
        "[backend:b]\ncommand = app {socket}\nlisten = socket\n[route:a]\nbackend = b\n",
        "[backend:b]\ncommand = app {port}\nenvironment = A=\nenvironment = _b1=x=y z\n"
        "directory = .\n[route:a]\nbackend = b\n",
        "[log]\naccess_format = %(h)s %% \"%({User-Agent}i)s\" %({x-y_z}i)s%(L)s\n"
        "[route:a]\nrespond = 200\n",
        "[log]\naccess_format = json\n[route:a]\nrespond = 200\n",
        "[master]\nbind = 0.0.0.0:80\nbind = [::]:80\nbind = unix:/x\n[route:a]\nrespond = 200\n",
        "[master]\n[worker]\n[log]\n[route:a]\nrespond = 200\n",
    };

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        config_free(load_text(texts[i]));
    }
}

Test(config_check, a_refused_line_does_not_make_its_section_lack_something)
{
    write_text("n.ini", "[backend:b]\nserevr = 127.0.0.1:1\n[route:a]\nbackned = b\n");
    expect_errors(FLAGS("-c", "n.ini"), NULL,
                  "n.ini:2: [backend:b] unknown key \"serevr\"; did you mean \"server\"?\n"
                  "n.ini:4: [route:a] unknown key \"backned\"; did you mean \"backend\"?\n");
}

Test(config_check, a_root_that_cannot_be_reached_says_why)
{
    if (geteuid() == 0) {
        cr_assert_eq(chmod(folder, 0755), 0);
        cr_assert_eq(mkdir("secret", 0700), 0);
        cr_assert_eq(seteuid(65534), 0); /* root may see everything */
    } else {
        cr_assert_eq(mkdir("secret", 0), 0);
    }
    char *expected = xasprintf("--static: the folder \"%s/secret/site\" cannot be used: Permission "
                               "denied\n",
                               folder);
    expect_errors(FLAGS("--static", "secret/site"), NULL, expected);
    free(expected);
    if (getuid() == 0) {
        cr_assert_eq(seteuid(0), 0);
    }
}
