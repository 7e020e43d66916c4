"""The content of the wheels and of the sdist: exactly what contents.toml lists."""

import fnmatch
import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from places import ANY, LINUX, WINDOWS

PACKAGES = ("engine", "export", "bench", "models")
KERNELS = "engine/kernels/"
RELEASE = [pytest.mark.environment, pytest.mark.release]
DIST = [pytest.param(platform, marks=RELEASE) for platform in (LINUX, WINDOWS, ANY)]


@pytest.fixture(params=["here", *DIST])
def archive(request, released):
    """A wheel: the one that is built here, and each in dist/."""
    path = request.getfixturevalue("wheel") if request.param == "here" else released(request.param)
    with zipfile.ZipFile(path) as opened:
        yield opened


@pytest.fixture
def names(archive):
    return archive.namelist()


@pytest.fixture
def tag(archive):
    return Path(archive.filename).stem.split("-", 2)[2]


def modules(repository):
    return {path.relative_to(repository).as_posix() for package in PACKAGES for path in (repository / package).rglob("*.py")}


def test_a_wheel_holds_exactly_what_is_listed(names, tag, contents, repository, version):
    suffix = ".dll" if "win" in tag else ".so"
    library = [] if tag == "py3-none-any" else [f"fusedbert/{KERNELS}fusedbert_kernels.x86_64{suffix}"]
    metadata = [f"fusedbert-{version}.dist-info/{name}" for name in contents["metadata"]]
    expected = [*contents["wheel"], *metadata, *library, *(f"fusedbert/{module}" for module in modules(repository))]
    assert sorted(names) == sorted(expected)


def test_a_wheel_of_a_platform_is_tagged_as_one_and_serves_every_python(archive, names, tag, version):
    assert tag.startswith("py3-none-")
    lines = archive.read(f"fusedbert-{version}.dist-info/WHEEL").decode().splitlines()
    assert f"Tag: {tag}" in lines
    assert f"Root-Is-Purelib: {str(tag.endswith('-any')).lower()}" in lines


def test_a_wheel_holds_the_embedded_checkpoint_and_the_licence_byte_for_byte(archive, checkpoint, repository, version):
    for path in (path for path in checkpoint.iterdir() if path.is_file()):
        assert archive.read(f"fusedbert/models/{checkpoint.name}/{path.name}") == path.read_bytes()
    licence = archive.read(f"fusedbert-{version}.dist-info/licenses/LICENSE")
    assert licence == (repository / "LICENSE").read_bytes()


def test_every_entry_point_of_a_wheel_names_a_module_in_it(archive, names, version):
    lines = archive.read(f"fusedbert-{version}.dist-info/entry_points.txt").decode().splitlines()
    targets = [line.split("=")[1].strip().split(":")[0] for line in lines if "=" in line]
    assert len(targets) >= 6
    for target in targets:
        stem = target.replace(".", "/")
        assert {f"{stem}.py", f"{stem}/__init__.py"} & set(names), target


def library(path):
    with zipfile.ZipFile(path) as opened:
        (name,) = (name for name in opened.namelist() if name.startswith(f"fusedbert/{KERNELS}fusedbert_kernels."))
        return opened.read(name)


@pytest.mark.environment
@pytest.mark.release
def test_the_linux_library_needs_no_newer_system_than_its_tag_says(released, contents):
    elffile = pytest.importorskip("elftools.elf.elffile", reason="pyelftools is not installed")
    data = library(released(LINUX))
    assert len(data) <= contents["library"]["bytes"]["linux"]
    found = elffile.ELFFile(io.BytesIO(data))
    assert found["e_machine"] == "EM_X86_64"
    symbols = found.get_section_by_name(".dynsym").iter_symbols()
    assert sorted(symbol.name for symbol in symbols if symbol["st_shndx"] != "SHN_UNDEF") == contents["library"]["symbols"]
    needed = [tag.needed for tag in found.get_section_by_name(".dynamic").iter_tags("DT_NEEDED")]
    assert sorted(needed) == contents["library"]["linux"]
    versions = [version.name for _, each in found.get_section_by_name(".gnu.version_r").iter_versions() for version in each]
    glibc = [tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in versions]
    assert glibc and max(glibc) <= tuple(map(int, LINUX.split("_")[1:3]))


@pytest.mark.environment
@pytest.mark.release
def test_the_windows_library_needs_nothing_but_the_system(released, contents):
    pefile = pytest.importorskip("pefile", reason="pefile is not installed")
    data = library(released(WINDOWS))
    assert len(data) <= contents["library"]["bytes"]["windows"]
    found = pefile.PE(data=data)
    assert found.FILE_HEADER.Machine == pefile.MACHINE_TYPE["IMAGE_FILE_MACHINE_AMD64"]
    assert sorted(symbol.name.decode() for symbol in found.DIRECTORY_ENTRY_EXPORT.symbols) == contents["library"]["symbols"]
    for entry in found.DIRECTORY_ENTRY_IMPORT:
        assert any(fnmatch.fnmatch(entry.dll.decode(), known) for known in contents["library"]["windows"]), entry.dll


@pytest.mark.environment
@pytest.mark.release
def test_the_sdist_holds_exactly_what_is_listed_and_nobodys_name(released, contents, repository, version):
    with tarfile.open(released("sdist")) as opened:
        members = [member for member in opened if member.isfile()]
    top = f"fusedbert-{version}/"
    sources = {
        path.relative_to(repository).as_posix() for suffix in "ch" for path in (repository / KERNELS).rglob(f"*.{suffix}")
    }
    data = {name.removeprefix("fusedbert/") for name in contents["wheel"]}
    expected = {*contents["sdist"], *modules(repository), *sources, *data}
    assert sorted(member.name.removeprefix(top) for member in members) == sorted(expected)
    assert {(member.uid, member.gid, member.uname, member.gname) for member in members} == {(0, 0, "", "")}
    assert len({member.mtime for member in members}) == 1


@pytest.mark.release
def test_the_sdist_holds_no_file_that_git_does_not_know(released, repository, version):
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("no git repository here, so nothing says which files are meant")
    with tarfile.open(released("sdist")) as opened:
        names = {member.name.removeprefix(f"fusedbert-{version}/") for member in opened if member.isfile()}
    made = {name for name in names if name in ("PKG-INFO", "setup.cfg") or name.startswith("fusedbert.egg-info/")}
    assert sorted(names - made - set(listed.stdout.splitlines())) == [], "git add them, or remove them"
