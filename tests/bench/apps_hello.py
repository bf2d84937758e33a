# SPDX-License-Identifier: Apache-2.0
"""The application that apps.py measures: FastAPI's hello world."""
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def hello():
    return {"hello": "world"}
