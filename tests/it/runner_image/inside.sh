# A job: what workflows do with Docker. Makes its image from the runner's own files, because
# no registry is reached.
cd "$(mktemp -d)"
mkdir -p root/tmp root/usr/bin
for program in bash cat sleep id touch getent mount mknod; do
  program=$(readlink -f "$(command -v $program)")
  for file in "$program" $(ldd "$program" | grep -o '/[^ ]*'); do
    mkdir -p "root$(dirname "$file")"
    cp -L "$file" "root$file"
  done
done
for dir in bin lib lib64; do [ -e "root/$dir" ] || ln -s "usr/$dir" "root/$dir"; done
tar -C root -c . | docker import - tiny >/dev/null
