# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of a test's own: Debian's server in a temporary folder, on a unix socket alone. It
touches no cluster that the machine may have. As root it runs as user postgres, for it refuses root."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import tempfile

import psycopg2

from narwhal import wait_until

DEADLINE = 60.0


def programs():
    """The folder of the newest server that is installed, or None."""
    found = glob.glob("/usr/lib/postgresql/*/bin/postgres")
    found.sort(key=lambda path: int(path.split("/")[4]))
    return os.path.dirname(found[-1]) if found else None


class Postgres:
    def __init__(self, schema):
        self.folder = tempfile.mkdtemp(prefix="narwhal-postgres-")
        self.identity = {}
        self.process = None
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        os.chmod(self.folder, 0o755)
        self.log = os.path.join(self.folder, "log")
        try:
            self.start()
            with open(schema, encoding="utf-8") as file:
                self.run(file.read())
        except BaseException:
            self.stop()
            raise

    @property
    def url(self):
        """For SQLAlchemy."""
        return f"postgresql+psycopg2://shop@/postgres?host={self.folder}"

    def start(self):
        data = os.path.join(self.folder, "data")
        with open(self.log, "wb") as log:
            subprocess.run([f"{programs()}/initdb", "-D", data, "-U", "shop", "-A", "trust",
                            "-E", "UTF8", "--no-locale", "--no-sync"], check=True, stdout=log,
                           stderr=log, cwd=self.folder, timeout=DEADLINE, **self.identity)
            # fsync is for the day on which the machine dies; here it is processes.
            self.process = subprocess.Popen(
                [f"{programs()}/postgres", "-D", data, "-k", self.folder,
                 "-c", "listen_addresses=", "-c", "fsync=off"], stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **self.identity)
        wait_until(self.answers, f"PostgreSQL in {self.folder}", DEADLINE)

    def answers(self):
        if self.process.poll() is not None:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                raise RuntimeError("PostgreSQL did not start; it said: " + log.read())
        try:
            self.connect().close()
        except psycopg2.OperationalError:
            return False
        return True

    def connect(self):
        connection = psycopg2.connect(host=self.folder, user="shop", dbname="postgres")
        connection.autocommit = True
        return connection

    def run(self, statement, *values):
        """Runs it in a transaction of its own; the rows, if it has any."""
        connection = self.connect()
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def stop(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # fast: sessions are ended
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
