"""Winograd minimal filtering: exact matrices of any F(m, r), their points and errors, forms of images, their cost."""

from fastcnn.methods.transforms.winograd.correlate import SUM_TERMS as SUM_TERMS
from fastcnn.methods.transforms.winograd.correlate import winograd_correlate as winograd_correlate
from fastcnn.methods.transforms.winograd.correlate import winograd_correlate_sum as winograd_correlate_sum
from fastcnn.methods.transforms.winograd.error import FormBounds as FormBounds
from fastcnn.methods.transforms.winograd.error import FormError as FormError
from fastcnn.methods.transforms.winograd.error import bound_form as bound_form
from fastcnn.methods.transforms.winograd.error import measure_form as measure_form
from fastcnn.methods.transforms.winograd.forms import WinogradForm as WinogradForm
from fastcnn.methods.transforms.winograd.forms import WinogradPiece as WinogradPiece
from fastcnn.methods.transforms.winograd.forms import WinogradSum as WinogradSum
from fastcnn.methods.transforms.winograd.forms import nested_form as nested_form
from fastcnn.methods.transforms.winograd.forms import polyphase as polyphase
from fastcnn.methods.transforms.winograd.forms import split_kernel as split_kernel
from fastcnn.methods.transforms.winograd.matrices import Matrix as Matrix
from fastcnn.methods.transforms.winograd.matrices import WinogradMatrices as WinogradMatrices
from fastcnn.methods.transforms.winograd.matrices import is_exact as is_exact
from fastcnn.methods.transforms.winograd.matrices import winograd_matrices as winograd_matrices
from fastcnn.methods.transforms.winograd.points import POINTS as POINTS
from fastcnn.methods.transforms.winograd.points import default_points as default_points
from fastcnn.methods.transforms.winograd.points import searched_points as searched_points
from fastcnn.methods.transforms.winograd.points import simple_rationals as simple_rationals
from fastcnn.methods.transforms.winograd.search import CANDIDATES as CANDIDATES
from fastcnn.methods.transforms.winograd.search import PointScore as PointScore
from fastcnn.methods.transforms.winograd.search import PointSearch as PointSearch
from fastcnn.methods.transforms.winograd.search import search_points as search_points
