# The image of the docker work pool in prefect-docker.yaml: docker build --tag veridical .
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir /src && rm -rf /src
ENV PYTHONSAFEPATH=1
WORKDIR /runs
