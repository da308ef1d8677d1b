"""Shapes are checked while tests run: functions and dataclasses with annotated tensors are checked at every call.

jaxtyping's own import hook decorates every function, those inside functions too, at each of their definitions, which
makes the suite three times as long. This one decorates functions and dataclasses that have an annotated tensor, once.
"""

import ast
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader

from beartype import BeartypeConf, beartype
from jaxtyping import jaxtyped

PACKAGES = ("veridical.pipelines", "veridical.decoders", "veridical.detectors")
KINDS = ("Float[", "Int[", "Bool[", "UInt8[", "Shaped[", "Num[", "Integer[", "Complex[")
NAME = "_checked_shapes"

checked = jaxtyped(typechecker=beartype(conf=BeartypeConf(is_pep484_tower=True)))


def shaped(annotation):
    """Whether an annotation names a shape."""
    return annotation is not None and any(kind in ast.unparse(annotation) for kind in KINDS)


class Decorate(ast.NodeTransformer):
    """Decorates what is annotated: functions inside all other decorators, dataclasses outside them."""

    def visit_ClassDef(self, node):
        self.generic_visit(node)
        if any(shaped(field.annotation) for field in node.body if isinstance(field, ast.AnnAssign)):
            node.decorator_list.insert(0, ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return node

    def visit_FunctionDef(self, node):
        """Annotations without a shape are left out: tests may pass a simpler object in place of a model or a step."""
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if shaped(node.returns) or any(shaped(argument.annotation) for argument in every):
            for argument in every:
                argument.annotation = argument.annotation if shaped(argument.annotation) else None
            node.returns = node.returns if shaped(node.returns) else None
            node.decorator_list.append(ast.copy_location(ast.Name(NAME, ast.Load()), node))
        return node


class Loader(SourceFileLoader):
    """Compiles a module with its functions decorated; compiled files are neither read nor written."""

    def path_stats(self, path):
        raise OSError

    def source_to_code(self, data, path, *, _optimize=-1):
        tree = ast.fix_missing_locations(Decorate().visit(ast.parse(data)))
        return compile(tree, path, "exec", dont_inherit=True, optimize=_optimize)

    def exec_module(self, module):
        setattr(module, NAME, checked)
        super().exec_module(module)


class Finder(MetaPathFinder):
    """Finds the package's modules as usual and loads them by `Loader`."""

    def find_spec(self, fullname, path=None, target=None):
        if not any(fullname == one or fullname.startswith(f"{one}.") for one in PACKAGES):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = Loader(spec.loader.name, spec.loader.path)
        return spec


def install():
    """From here on; nothing of the packages may be imported already.

    Raises:
        RuntimeError: something is.
    """
    if early := sorted(name for name in sys.modules if name.startswith(PACKAGES)):
        raise RuntimeError(f"{early[0]} was imported before its shapes could be checked; import it later")
    sys.meta_path.insert(0, Finder())
