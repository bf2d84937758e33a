<?php
// SPDX-License-Identifier: Apache-2.0
header('Content-Type: text/plain; charset=utf-8');
echo 'hello ', $_GET['name'] ?? 'world', ' at ', $_SERVER['HTTP_X_FORWARDED_FOR'], "\n";
