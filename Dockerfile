# The demo and its HTTP service, and every other command of pacl.
#   docker build -t pacl .                                                             CPU
#   docker build -t pacl --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .   GPU
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1

# torch first and alone: with it in place, nothing that follows looks for another build.
WORKDIR /src
COPY constraints.txt ./
RUN grep -v '^torch==' constraints.txt > pins.txt \
    && pip install --index-url "$TORCH_INDEX" "$(grep '^torch==' constraints.txt)"
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY models models
RUN pip install -c pins.txt '.[demo,onnx,coco,data,ray,video]' && pip check

RUN useradd --create-home pacl
USER pacl
WORKDIR /home/pacl
ENV HF_HOME=/home/pacl/.cache/huggingface PACL_MODEL=storybook
EXPOSE 7860
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:7860/')"]
CMD ["sh", "-c", "pacl demo --host 0.0.0.0 --port 7860 --model \"$PACL_MODEL\""]
