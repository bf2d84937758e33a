# SPDX-License-Identifier: Apache-2.0
workers = 2
worker_class = "uvicorn.workers.UvicornWorker"
# Whoever can reach the socket is believed about X-Forwarded-For: narwhal, which writes it anew.
forwarded_allow_ips = "*"
