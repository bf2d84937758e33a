/* SPDX-License-Identifier: Apache-2.0
 *
 * A TCP port on loopback that nobody listens on, for an app instance that is told its port. Runs
 * in the master.
 */
#pragma once

/* The port, or a negative errno. Below the kernel's range for outgoing connections
 * (net.ipv4.ip_local_port_range, ip(7)), so that none takes it before the application does, and a
 * probe cannot connect to itself. */
int free_port_find(void);
