#!/bin/sh
# Compiles llama-server with CUDA into /opt/llama_cpp: build_cuda.sh TAG CUDA_ARCHITECTURES [CMAKE_OPTION...]
# The flags are those of llama.cpp's own .devops/cuda.Dockerfile; without the page for browsers and without downloads.
set -eu
tag=$1 architectures=$2
shift 2

# without file contents of the past, but with its commits: their number is the version that the server tells
git clone --filter=blob:none --branch "$tag" https://github.com/ggml-org/llama.cpp /src
cd /src
cmake -B build \
    -DCMAKE_BUILD_TYPE=Release \
    -DCMAKE_CUDA_ARCHITECTURES="$architectures" \
    -DCMAKE_EXE_LINKER_FLAGS=-Wl,--allow-shlib-undefined \
    -DGGML_CUDA=ON \
    -DGGML_NATIVE=OFF \
    -DGGML_BACKEND_DL=ON \
    -DLLAMA_BUILD_TESTS=OFF \
    -DLLAMA_BUILD_EXAMPLES=OFF \
    -DLLAMA_BUILD_UI=OFF \
    -DLLAMA_USE_PREBUILT_UI=OFF \
    -DLLAMA_OPENSSL=OFF \
    "$@"
cmake --build build --target llama-server -j "$(nproc)"

mkdir -p /opt/llama_cpp
find build -name '*.so*' -exec cp -P {} /opt/llama_cpp/ \;
cp build/bin/llama-server /opt/llama_cpp/
